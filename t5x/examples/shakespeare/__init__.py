"""A T5 on the plays of Shakespeare, small enough for a laptop; see docs/t5x.md."""
