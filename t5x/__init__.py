"""A JAX trainer for sequence models, configured by gin, with the public names of t5x."""
