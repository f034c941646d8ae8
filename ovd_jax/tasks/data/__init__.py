"""Problems and examples from files and the hub."""
