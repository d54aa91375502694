"""`python -m musax` is the command `musax`."""

import sys

from musax.cli import main

if __name__ == "__main__":
    sys.exit(main())
