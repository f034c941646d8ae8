"""On-policy Verbal Distillation in JAX."""
