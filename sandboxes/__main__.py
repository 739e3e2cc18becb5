"""`python -m sandboxes check`: the conformance table of this machine's sandbox.

One command so far; everything else is the Python interface.
"""

import sys

from sandboxes.check import main

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] != "check":
        sys.exit("usage: python -m sandboxes check [--tier A|B|C] [--slots N]")
    sys.exit(main(sys.argv[2:]))
