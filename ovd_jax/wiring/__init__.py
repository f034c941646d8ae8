"""From a config to the parts that the drivers put together."""
