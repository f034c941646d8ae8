"""Problems and examples out of files and the hub."""
