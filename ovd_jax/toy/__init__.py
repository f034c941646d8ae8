"""What only the models that are shipped need: their tokenizers and examples."""
