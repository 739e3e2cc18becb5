"""The private root of tier A: a read-only tmpfs that shows the standard library, shared libraries and three devices.

Runs in the zygote before any model text. Assumes a mount namespace of its own with the right to mount.
Shows no /proc, no /sys, no /etc beyond the linker's cache, no home, no site-packages.
"""

from __future__ import annotations

import ctypes
import os
import sys

from sandboxes import kernel

SCRATCH_PARENT = "/scratch"  # Landlock rules on it also cover whatever is mounted below it
SCRATCH = "/scratch/tmp"  # /tmp is a link to it
PACKAGES = "/packages"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
LIBRARY_DIRS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_MOUNT_SETATTR, _AT_RECURSIVE = 442, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4


def readable_dirs() -> list[str]:
    """Directories an honest program needs to read: standard library and shared libraries, without links among them."""
    prefix = os.path.realpath(sys.base_prefix)
    wanted = [os.path.dirname(os.path.realpath(os.__file__))]
    if prefix not in ("/usr", "/"):
        wanted.append(os.path.join(prefix, "lib"))
    wanted += [*LIBRARY_DIRS, "/usr/share/zoneinfo"]
    real = sorted({os.path.realpath(path) for path in wanted if os.path.isdir(path)})
    return [path for path in real if not any(path.startswith(other + "/") for other in real)]


def hidden_dirs(parents: list[str]) -> list[str]:
    """Third-party package directories below `parents`: they may hold data sets, so they are covered up."""
    found = []
    for parent in parents:
        candidates = [parent, os.path.join(parent, "python3"), *_versioned(parent)]
        found += [os.path.join(c, name) for c in candidates for name in ("site-packages", "dist-packages")]
    return [path for path in found if os.path.isdir(path) and not os.path.islink(path)]


def reading_rules() -> list[tuple[str, bool]]:
    """(path, whether the files below may be read) for readable directories, third-party packages left out.

    Rights hold for everything below a path, so a directory with something hidden in it is listed entry by entry; the
    names in hidden directories stay visible, their files do not.
    """
    shown = readable_dirs()
    hidden = set(hidden_dirs(shown))

    def rules(path: str) -> list[tuple[str, bool]]:
        if path in hidden:
            return []
        if not any(other.startswith(path + "/") for other in hidden):
            return [(path, True)]
        entries = (os.path.join(path, name) for name in os.listdir(path))
        return [(path, False), *(rule for entry in entries if os.path.exists(entry) for rule in rules(entry))]

    return [rule for path in shown for rule in rules(path)]


def enter(packages: dict[str, str], shares_memory: bool) -> None:
    """Build the private root and make it this process's root. `packages` maps names below /packages to host paths.

    `shares_memory`: /dev/shm, where semaphores and shared memory of processes live, is the scratch directory.
    """
    shown = readable_dirs()
    stage = _staging_dir([*shown, *packages.values()])
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", stage, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,nr_inodes=1k,mode=755")
    for path in shown:
        _bind(path, stage + path)
    for path in hidden_dirs(shown):
        kernel.mount("tmpfs", stage + path, "tmpfs", kernel.MS_RDONLY, "size=4k,nr_inodes=2,mode=0")
    for name, path in packages.items():
        if os.path.isdir(path):
            _bind(path, f"{stage}{PACKAGES}/{name}")
        else:
            _bind_file(path, f"{stage}{PACKAGES}/{name}", _ATTR_RDONLY)
    for link in LIBRARY_DIRS:
        if os.path.islink(link):
            os.symlink(os.readlink(link), stage + link)
    for device in DEVICES:
        _bind_file(device, stage + device, _ATTR_RDONLY)  # it can be written to; its mode and times cannot be changed
    if os.path.exists("/etc/ld.so.cache"):
        _bind_file("/etc/ld.so.cache", stage + "/etc/ld.so.cache", _ATTR_RDONLY)
    os.makedirs(stage + SCRATCH)
    os.symlink(SCRATCH, stage + "/tmp")
    if shares_memory:
        os.symlink(SCRATCH, stage + "/dev/shm")
    os.chdir(stage)
    kernel.pivot_root(".", ".")
    kernel.umount(".")
    os.chdir("/")
    _set_attributes("/", _ATTR_RDONLY, recursive=False)


def protect_devices() -> None:
    """Devices that another program has bound: the worker may be their owner, and must not change their mode for all."""
    for device in DEVICES:
        _set_attributes(device, _ATTR_RDONLY | _ATTR_NOSUID, recursive=False)


def mount_scratch(disk_bytes: int, num_inodes: int) -> None:
    """A fresh, empty, writable tmpfs at /tmp, visible in this namespace only."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOATIME
    kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={max(disk_bytes, 4096)},nr_inodes={num_inodes + 1},mode=1777")


def _versioned(parent: str) -> list[str]:
    return [os.path.join(parent, name) for name in os.listdir(parent) if name.startswith("python3")]


def _staging_dir(used: list[str]) -> str:
    """An existing directory to mount on, which no shown path lies below."""
    for path in ("/mnt", "/media", "/srv", "/opt", "/home", "/tmp"):
        if os.path.isdir(path) and not any((other + "/").startswith(path + "/") for other in used):
            return path
    raise OSError("no directory to build the private root on")


def _bind(source: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    _set_attributes(target, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=True)


def _bind_file(source: str, target: str, attributes: int) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(source, target, None, kernel.MS_BIND)
    _set_attributes(target, attributes | _ATTR_NOSUID, recursive=False)


def _set_attributes(path: str, attributes: int, recursive: bool) -> None:
    """mount_setattr(2): adds flags to a mount and keeps the ones it has."""
    request = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    kernel.syscall(_MOUNT_SETATTR, -100, os.fsencode(path), flags, request, 32, what=f"mount_setattr {path}")
