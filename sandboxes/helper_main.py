"""Entry point of the helper processes: `python -I -S helper_main.py judge|zygote CONTROL CONFIG`.

CONTROL is a file descriptor or, in a container, the path of a Unix socket to connect to.
Makes the package importable without running its __init__, which keeps the helpers slim.
Runs trusted code only; the zygote it starts is what later forks the workers.
"""

import os
import sys
import types


def connect(path: str) -> int:
    """A file descriptor connected to the socket at `path`."""
    import socket

    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect(path)
    return link.detach()


def main() -> None:
    """Run the role named on the command line."""
    package = types.ModuleType("sandboxes")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["sandboxes"] = package
    sys.dont_write_bytecode = False
    role, control, config = sys.argv[1:4]
    descriptor = int(control) if control.isdigit() else connect(control)
    if role == "judge":
        from sandboxes.judge import main as run
    else:
        from sandboxes.zygote import main as run
    run(descriptor, config)


if __name__ == "__main__":
    main()
