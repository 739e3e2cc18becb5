"""The confinement a zygote puts itself under before it forks workers: namespaces, a user, file rules, resource limits.

Runs in the zygote, trusted, once per slot. Every function raises OSError if a layer cannot be had.
"""

from __future__ import annotations

import os
import resource
from _signal import SIGKILL
from _socket import sethostname, socket

from sandboxes import kernel, rootfs

HELPERS = "/helpers"  # where this package lies in a root that bubblewrap builds, until the zygote has started
NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWPID
)


def enter_namespaces(control: socket, config: dict) -> None:
    """New user, mount, net, ipc, uts and pid namespaces and a private root. Returns in their process 1."""
    if config["real_root"]:  # real root may read what the mapped user may not (a Python below /root)
        kernel.unshare(kernel.CLONE_NEWNS)
        rootfs.enter(config["packages"], config["limits"]["num_processes"] > 0)
    kernel.unshare(NAMESPACES)
    control.send(b"map")
    if control.recv(16) != b"mapped":
        raise OSError("the judge could not map user ids")
    if config["real_root"]:
        switch_user(0)
    else:
        rootfs.enter(config["packages"], config["limits"]["num_processes"] > 0)
    mount_scratch(config["limits"])
    sethostname("sandbox")
    child = os.fork()
    if child:
        _wait_for(child)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, SIGKILL)
    os.chdir(rootfs.SCRATCH)


def finish_bubblewrap(limits: dict) -> None:
    """The rest of tier A's root, where bubblewrap has built the namespaces: our own code is in memory by now."""
    mount_scratch(limits)
    rootfs.protect_devices()
    kernel.umount(HELPERS)


def mount_scratch(limits: dict) -> None:
    """The slot's own writable file system, of `disk_bytes` and `num_inodes`."""
    rootfs.mount_scratch(limits["disk_bytes"], limits["num_inodes"])


def _wait_for(child: int) -> None:
    """Stay as the parent of process 1, without rights, and end with it."""
    os.closerange(0, 64)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, SIGKILL)  # again: a change of user clears it
    os.waitpid(child, 0)
    os._exit(0)


def switch_user(uid: int) -> None:
    """Become user and group `uid`, of no other group."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def landlock_ruleset(config: dict) -> int:
    """Reading the libraries, writing the scratch directory and /dev/null; nothing else. A file descriptor."""
    if config["root"] == "private":
        rules = [("/", kernel.READ_ONLY), (rootfs.SCRATCH_PARENT, kernel.READ_WRITE)]
    else:
        rules = [(path, kernel.READ_ONLY if files else kernel.LIST_ONLY) for path, files in rootfs.reading_rules()]
        others = [*config["packages"].values(), "/etc/ld.so.cache", "/dev/urandom", "/dev/zero"]
        rules += [(path, kernel.READ_ONLY) for path in others if os.path.exists(path)]
        rules += [(path, kernel.LIST_ONLY) for path in {os.path.dirname(path) for path in config["packages"].values()}]
        rules.append((config["scratch"], kernel.READ_WRITE))
    return kernel.landlock_ruleset([*rules, ("/dev/null", kernel.DEVICE)])


def set_resource_limits(limits: dict, num_own_tasks: int | None) -> None:
    """Limits that the workers inherit. The one on CPU time is set in the worker: it counts from the process's start.

    `num_own_tasks` of the zygote count as the user's; None where others do too, who would then keep it from forking.
    """
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))  # the judge's guard of itself is not for its zygotes
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["num_open_files"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 64 << 20),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        resource.setrlimit(kind, (value, value))
    if num_own_tasks is not None:
        num_tasks = limits["num_threads"] + limits["num_processes"] + num_own_tasks
        resource.setrlimit(resource.RLIMIT_NPROC, (num_tasks, num_tasks))
