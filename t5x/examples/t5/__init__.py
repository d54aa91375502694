"""T5 1.1: network and size files."""
