"""`python -m rl_distill.cli COMMAND ...`, the same as `rl-distill COMMAND ...`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
