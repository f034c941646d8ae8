"""Search engines that a student may ask."""
