"""Entry point of the helper processes: `python -I -S boot.py judge|zygote FD CONFIG`.

Makes the package importable without running its __init__, which keeps the helpers slim.
Runs trusted code only; the zygote it starts is what later forks the boxes.
"""

import os
import sys
import types


def main() -> None:
    """Run the role named on the command line."""
    package = types.ModuleType("sandboxes")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["sandboxes"] = package
    sys.dont_write_bytecode = False
    role, descriptor, config = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if role == "judge":
        from sandboxes.judge import main as run
    else:
        from sandboxes.zygote import main as run
    run(descriptor, config)


if __name__ == "__main__":
    main()
