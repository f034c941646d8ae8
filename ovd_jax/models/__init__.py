"""The transformer and the files it is read from."""
