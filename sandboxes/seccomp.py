"""Assembles the seccomp filter: an allow-list of system calls, some of them only with harmless arguments.

Pure functions from limits to packed BPF; nothing is installed here. The numbers are in `syscalls.py`.
Denied calls fail with EPERM; a foreign architecture (int 0x80) kills the process.
"""

from __future__ import annotations

import struct

from sandboxes import syscalls

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38

LD_ABS, JEQ, JGE, JSET, JA, RET, AND = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06, 0x54
OFFSET_NUMBER, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16

CLONE3 = 435  # its flags lie behind a pointer; ENOSYS makes the C library use clone
CLONE_THREAD = 0x00010000
CLONE_NEW_ANY = 0x7E020000  # every CLONE_NEW* flag that clone takes (NEWTIME is for clone3 only, which is denied)
AF_UNIX = 1
RLIMIT_STACK = 3
PRCTL_OPTIONS = (
    3,
    15,
    16,
    23,
    39,
    0x53564D41,
)  # get dumpable, set/get name, read bounding set, get nnp, name a mapping
IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C542A)  # isatty, window size, FIO*
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 36, 37, 38, 1030, 1031, 1032)  # no F_SETOWN, F_SETSIG, leases, notify

PID_MARK = 0x7FABCDEF  # replaced by the program's own pid in `bind_pid`

Code = list[tuple[int, int, int, int]]  # (operation, jump if true, jump if false, constant)


def build(machine: str, num_processes: int) -> bytes:
    """The filter for `machine` (x86_64 or aarch64), with PID_MARK where the program's pid belongs."""
    allowed = {number: ALLOW for number in syscalls.numbers(syscalls.ALLOWED, machine).values()}
    checked = syscalls.numbers(syscalls.CHECKED, machine)
    rules: dict[int, Code | int] = {CLONE3: ENOSYS, **allowed}
    rules.update({number: _argument_rule(name, num_processes) for name, number in checked.items()})
    code: Code = [
        (LD_ABS, 0, 0, OFFSET_ARCH),
        (JEQ, 1, 0, syscalls.AUDIT_ARCH[machine]),
        (RET, 0, 0, KILL),
        (LD_ABS, 0, 0, OFFSET_NUMBER),
        (JGE, 0, 1, syscalls.HIGHEST_KNOWN + 1),
        (RET, 0, 0, ENOSYS),
    ]
    code += _search(_ranges(rules))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def bind_pid(program: bytes, pid: int) -> bytes:
    """The filter with PID_MARK replaced: kill and tgkill reach the program itself and nothing else."""
    return program.replace(struct.pack("=I", PID_MARK), struct.pack("=I", pid))


def _ranges(rules: dict[int, Code | int]) -> list[tuple[int, int, Code | int]]:
    """Rules as sorted (first, last, rule), neighbours with the same plain action merged."""
    merged: list[tuple[int, int, Code | int]] = []
    for number in sorted(rules):
        rule = rules[number]
        if merged and merged[-1][1] == number - 1 and isinstance(rule, int) and merged[-1][2] == rule:
            merged[-1] = (merged[-1][0], number, rule)
        else:
            merged.append((number, number, rule))
    return merged


def _search(ranges: list[tuple[int, int, Code | int]]) -> Code:
    """Binary search over the ranges; a number in none of them is denied."""
    if len(ranges) == 1:
        first, last, rule = ranges[0]
        body = [(RET, 0, 0, rule)] if isinstance(rule, int) else rule
        return [(JGE, 0, 1, first), (JGE, 0, 1, last + 1), (RET, 0, 0, EPERM), *body]
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle]), _search(ranges[middle:])
    return [(JGE, 0, 1, ranges[middle][0]), (JA, 0, 0, len(left)), *left, *right]


def _argument_rule(name: str, num_processes: int) -> Code | int:
    """What `name` may do. Each rule ends in RET on every path."""
    if name == "clone":
        if num_processes:
            return [_low(0), (JSET, 0, 1, CLONE_NEW_ANY), (RET, 0, 0, EPERM), (RET, 0, 0, ALLOW)]
        return [
            _low(0),
            (JSET, 0, 1, CLONE_NEW_ANY),
            (RET, 0, 0, EPERM),
            (JSET, 0, 1, CLONE_THREAD),
            (RET, 0, 0, ALLOW),
            (RET, 0, 0, EPERM),
        ]
    if name in ("fork", "vfork"):
        return ALLOW if num_processes else EPERM
    if name == "prlimit64":
        return _prlimit_rule()
    if name == "setrlimit":
        return _one_of(0, (RLIMIT_STACK,))
    if name in ("kill", "tgkill"):
        return _one_of(0, (PID_MARK,))
    if name == "socketpair":
        return _one_of(0, (AF_UNIX,))
    if name == "prctl":
        return _one_of(0, PRCTL_OPTIONS)
    argument = {"ioctl": (1, IOCTL_REQUESTS), "fcntl": (1, FCNTL_COMMANDS)}[name]
    return _one_of(*argument)


def _prlimit_rule() -> Code:
    """Reading limits is free; setting only the own stack size (up to the hard limit)."""
    return [
        (LD_ABS, 0, 0, OFFSET_ARGS),
        (JEQ, 1, 0, 0),  # pid 0: itself
        (RET, 0, 0, EPERM),
        (LD_ABS, 0, 0, OFFSET_ARGS + 8),
        (JEQ, 0, 1, RLIMIT_STACK),
        (RET, 0, 0, ALLOW),
        (LD_ABS, 0, 0, OFFSET_ARGS + 16),
        (JEQ, 0, 2, 0),
        (LD_ABS, 0, 0, OFFSET_ARGS + 20),
        (JEQ, 1, 0, 0),
        (RET, 0, 0, EPERM),
        (RET, 0, 0, ALLOW),
    ]


def _low(argument: int) -> tuple[int, int, int, int]:
    return (LD_ABS, 0, 0, OFFSET_ARGS + 8 * argument)


def _one_of(argument: int, values: tuple[int, ...]) -> Code:
    """Allow if the low 32 bits of `argument` equal one of `values` (the kernel reads these arguments as int)."""
    code: Code = [_low(argument)]
    for value in values:
        code += [(JEQ, 0, 1, value), (RET, 0, 0, ALLOW)]
    return [*code, (RET, 0, 0, EPERM)]
