"""Starts a zygote: plainly, or in confinement that another program builds (bubblewrap, docker, podman).

Used by the judge. In every case the zygote is the same program and speaks over the same kind of socket.
Raises OSError or ZygoteLost; what is started ends with the socket at the latest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandboxes import confinement, framing, host, rootfs

PATIENCE_SECONDS = 20
_CONTAINER_START_SECONDS = 120.0  # an image may have to be unpacked
_CONTAINER_UID = 65534
_HERE = os.path.dirname(os.path.abspath(__file__))
_CREDENTIALS = struct.Struct("iII")


class ZygoteLost(Exception):
    """The zygote failed to start, to set up a worker, or to answer."""


@dataclass
class Running:
    """A zygote that waits for b"go"."""

    control: socket.socket
    pid: int  # a process above the workers, in our own pid namespace
    num_generations: int  # from `pid` down to a worker
    end: Callable[[], None]  # ends the zygote and everything below it


def python_command(home: str = _HERE) -> list[str]:
    """The helpers' interpreter: isolated, no site-packages, the base one rather than a virtual environment's.

    `home` is where this package is seen.
    """
    return [_python(), "-I", "-S", "-u", "-X", "utf8", home + "/helper_main.py"]


def _python() -> str:
    return getattr(sys, "_base_executable", None) or sys.executable


def plainly(config: dict[str, Any], prefix: list[str], join_cgroup: Callable[[int], None]) -> Running:
    """A zygote as a child process, its command line behind `prefix`; `join_cgroup` takes 0 for the calling process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = python_command(confinement.HELPERS) if prefix else python_command()
    with theirs:
        process = subprocess.Popen(
            [*prefix, *command, "zygote", str(theirs.fileno()), json.dumps(config)],
            pass_fds=[theirs.fileno()],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            preexec_fn=(lambda: join_cgroup(0)) if prefix else None,
        )
    if not prefix:
        join_cgroup(process.pid)

    def end() -> None:
        process.kill()
        process.wait()

    return Running(_patient(ours), process.pid, 2 if config["tier"] == "A" else 1, end)


def bubblewrap_prefix(packages: dict[str, str], shares_memory: bool) -> list[str]:
    """The bwrap command that builds tier A's namespaces and private root; the zygote adds the rest. Raises OSError."""
    program = shutil.which("bwrap")
    if program is None:
        raise OSError("bubblewrap is not installed: there is no bwrap on the PATH")
    shown, python = rootfs.readable_dirs(), os.path.realpath(_python())
    words = [program, "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
    words += ["--cap-add", "CAP_SYS_ADMIN"]  # for the scratch file system; the zygote gives it up
    words += ["--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
    for path in shown:
        words += ["--ro-bind", path, path]
    for path in rootfs.hidden_dirs(shown):
        words += ["--perms", "0000", "--tmpfs", path, "--remount-ro", path]
    for name, path in packages.items():
        words += ["--ro-bind", path, f"{rootfs.PACKAGES}/{name}"]
    for path in {python, _python()}:
        words += ["--ro-bind", path, path]
    words += ["--ro-bind", _HERE, confinement.HELPERS]  # the zygote covers it up again
    for link in rootfs.LIBRARY_DIRS:
        if os.path.islink(link):
            words += ["--symlink", os.readlink(link), link]
    for device in rootfs.DEVICES:
        words += ["--dev-bind", device, device]
    if shares_memory:
        words += ["--symlink", rootfs.SCRATCH, "/dev/shm"]
    words += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--dir", rootfs.SCRATCH]
    return [*words, "--symlink", rootfs.SCRATCH, "/tmp", "--remount-ro", "/", "--chdir", "/", "--"]


def in_container(config: dict[str, Any], engine: str, image: str, name: str) -> Running:
    """A zygote as process 1 of a container of `image`, which must hold a python3; it reports over a Unix socket."""
    program = shutil.which(engine)
    if program is None:
        raise OSError(f"there is no {engine} on the PATH")
    meeting = host.make_scratch(None)  # swept with the slot
    os.chmod(meeting, 0o711)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(meeting + "/door")
        os.chmod(meeting + "/door", 0o666)
        door.listen(1)
        door.settimeout(_CONTAINER_START_SECONDS)
        command = [
            program,
            "run",
            "--rm",
            "--name",
            name,
            *_container_options(engine, config["limits"], meeting),
            image,
        ]
        command += ["python3", "-I", "-S", "-u", "-X", "utf8", "/sandboxes/helper_main.py", "zygote", "/meeting/door"]
        process = subprocess.Popen(
            [*command, json.dumps(config)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

        def end() -> None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it ends by itself when the control socket closes
                process.wait(5.0)
            if process.returncode is None:
                subprocess.run([program, "kill", name], capture_output=True, check=False)
            process.kill()
            process.wait()
            shutil.rmtree(meeting, ignore_errors=True)

        try:
            control = _first_visitor(door, process)
        except ZygoteLost:
            end()
            raise
    pid, _, _ = _CREDENTIALS.unpack(control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Running(_patient(control), pid, 1, end)


def _container_options(engine: str, limits: dict[str, Any], meeting: str) -> list[str]:
    num_bytes, num_tasks = host.slot_size(limits)
    scratch = f"size={limits['disk_bytes']},mode=1777,nosuid,nodev"
    # podman refuses nr_inodes (files are then bounded by the memory they take) and would copy the image's /tmp
    scratch += f",nr_inodes={limits['num_inodes'] + 1}" if engine == "docker" else ",notmpcopyup"
    return [
        *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--user", f"{_CONTAINER_UID}:{_CONTAINER_UID}", "--workdir", "/", "--tmpfs", f"/tmp:{scratch}"),
        *("--pids-limit", str(num_tasks), "--memory", str(num_bytes), "--memory-swap", str(num_bytes)),
        *("--volume", f"{_HERE}:/sandboxes:ro", "--volume", f"{meeting}:/meeting:ro"),
    ]


def _first_visitor(door: socket.socket, process: subprocess.Popen) -> socket.socket:
    """The connection of the zygote. Raises ZygoteLost with the engine's own words if the container ends first."""
    patience, step = door.gettimeout() or 0.0, 0.2
    door.settimeout(step)
    while patience > 0:
        with contextlib.suppress(TimeoutError):
            return door.accept()[0]
        patience -= step
        if process.poll() is not None:
            assert process.stderr is not None
            raise ZygoteLost(f"the container ended: {process.stderr.read(2000).decode(errors='replace').strip()}")
    raise ZygoteLost("the container did not start in time")


def _patient(control: socket.socket) -> socket.socket:
    """`control` as a blocking socket that gives up after PATIENCE_SECONDS."""
    control.settimeout(None)
    framing.set_patience(control, PATIENCE_SECONDS)
    return control
