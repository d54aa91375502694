"""The verbs of the command `musax`, one module each."""
