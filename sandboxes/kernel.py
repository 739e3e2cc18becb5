"""Linux system calls that the standard library does not wrap: namespaces, mounts, capabilities, Landlock, prctl.

Every function raises OSError with the kernel's errno. Numbers are for x86_64 and aarch64.
Used by the zygote before any model text runs; nothing here parses untrusted data.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from resource import RLIMIT_CPU, getrlimit

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME = 1, 2, 4, 8, 32, 1024
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 4, 24, 38, 22
PR_SET_CHILD_SUBREAPER = 36
SECCOMP_MODE_FILTER = 2

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
MACHINE = {"arm64": "aarch64", "AMD64": "x86_64"}.get(os.uname().machine, os.uname().machine)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(number: int, *args: object, what: str = "syscall") -> int:
    """Raw system call; integers are passed as 64-bit values."""
    return _check(_syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args]), what)


def unshare(flags: int) -> None:
    """Leave the namespaces named in `flags`."""
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)."""
    code = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind) if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(options),
    )
    _check(code, f"mount {source} on {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily by default."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall(_PIVOT_ROOT[MACHINE], os.fsencode(new_root), os.fsencode(put_old), what="pivot_root")


def prctl(option: int, arg2: int = 0, arg3: int | ctypes.Array = 0, arg4: int = 0, arg5: int = 0) -> None:
    """prctl(2)."""
    third = ctypes.c_ulong(arg3) if isinstance(arg3, int) else arg3
    result = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(arg2), third, ctypes.c_ulong(arg4), ctypes.c_ulong(arg5))
    _check(result, f"prctl({option})")


def drop_bounding_set() -> None:
    """Remove every capability from the bounding set, so that nothing regains one through exec."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            return


_CAP_HEADER = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
_CAP_NONE = ctypes.create_string_buffer(24)


def drop_capabilities() -> None:
    """Give up all capabilities: effective, permitted and inheritable."""
    syscall(_CAPSET[MACHINE], _CAP_HEADER, _CAP_NONE, what="capset")


_FS_EXECUTE, _FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1, 2, 4, 8
_FS_REMOVE_DIR, _FS_REMOVE_FILE, _FS_MAKE_DIR, _FS_MAKE_REG = 16, 32, 128, 256
_FS_REFER, _FS_TRUNCATE, _FS_IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
LIST_ONLY = _FS_READ_DIR
READ_ONLY = _FS_READ_FILE | _FS_READ_DIR
READ_WRITE = READ_ONLY | _FS_WRITE_FILE | _FS_REMOVE_DIR | _FS_REMOVE_FILE | _FS_MAKE_DIR | _FS_MAKE_REG
READ_WRITE |= _FS_TRUNCATE | _FS_REFER
DEVICE = _FS_READ_FILE | _FS_WRITE_FILE


def landlock_abi() -> int:
    """Version of Landlock that the kernel offers; 0 if none."""
    try:
        return syscall(_LANDLOCK_CREATE, 0, 0, 1, what="landlock")
    except OSError:
        return 0


def landlock_ruleset(rules: list[tuple[str, int]]) -> int:
    """A file descriptor of a ruleset that allows `rules` (path, rights) and denies everything else the kernel knows."""
    abi = landlock_abi()
    handled_fs = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    handled_net, scoped = (3 if abi >= 4 else 0), (3 if abi >= 6 else 0)
    attr = struct.pack("=QQQ", handled_fs, handled_net, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = syscall(_LANDLOCK_CREATE, ctypes.create_string_buffer(attr, len(attr)), len(attr), 0, what="landlock")
    for path, rights in rules:
        if not os.path.isdir(path):
            rights &= _FS_EXECUTE | _FS_WRITE_FILE | _FS_READ_FILE | _FS_TRUNCATE | _FS_IOCTL_DEV
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights & handled_fs, beneath), 12)
        try:
            syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0, what=f"landlock rule for {path}")
        finally:
            os.close(beneath)
    return ruleset


def landlock_restrict(ruleset: int) -> None:
    """Confine this process to `ruleset`. Needs no_new_privs."""
    syscall(_LANDLOCK_RESTRICT, ruleset, 0, what="landlock_restrict_self")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install_seccomp(program: bytes) -> None:
    """Install a seccomp filter (packed sock_filter instructions) on this thread. Needs no_new_privs."""
    prepared_seccomp(program, 0)(0)


def prepared_seccomp(program: bytes, mark: int) -> Callable[[int], None]:
    """A function that installs `program` with its argument in place of the constant `mark`.

    Everything is laid out beforehand: what a child touches after a fork costs it a copy of a page.
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // 8, ctypes.addressof(code))
    words = memoryview(code).cast("B").cast("I")
    places = [at for at in range(1, len(words), 2) if words[at] == mark]
    number, mode, zero = ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.c_ulong(0)
    pointer, call = ctypes.byref(header), _libc.prctl

    def install(value: int) -> None:
        for place in places:
            words[place] = value
        if call(number, mode, pointer, zero, zero) != 0:
            _check(-1, "seccomp")

    return install


def prepared_cpu_limit() -> Callable[[int], None]:
    """A function that sets this process's limit on CPU seconds: SIGXCPU there; the judge's clock ends who ignores it.

    The kernel's SIGKILL is out of reach: it counts in ticks, so a program that runs at every tick and sleeps in between
    could earn it early, and look as if it had been killed from outside.
    """
    pair = (ctypes.c_uint64 * 2)()
    values = memoryview(pair).cast("B").cast("Q")
    kind, pointer, call = ctypes.c_int(RLIMIT_CPU), ctypes.byref(pair), _libc.setrlimit
    most = getrlimit(RLIMIT_CPU)[1] % (1 << 64)  # no limit is -1

    def limit(seconds: int) -> None:
        values[0] = seconds
        values[1] = min(seconds + 3600, most)
        if call(kind, pointer) != 0:
            _check(-1, "setrlimit")

    return limit
