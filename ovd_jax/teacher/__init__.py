"""Teachers: the protocol, the prompts, and a model in this process."""
