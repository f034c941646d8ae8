"""Whether an answer equals a gold one."""
