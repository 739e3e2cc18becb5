"""Assembles the seccomp filter: an allow-list of system calls, some of them only with harmless arguments.

Pure functions from limits to packed BPF; nothing is installed here. The numbers are in `syscalls.py`.
Denied calls fail with EPERM; a foreign architecture (int 0x80) and SIGKILL to itself kill the process with SIGSYS.
"""

from __future__ import annotations

import struct

from sandboxes import syscalls

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS, ENOTSUP, DONE = ERRNO | 1, ERRNO | 38, ERRNO | 95, ERRNO  # done: success without doing anything

LD_ABS, JEQ, JGE, JSET, JA, RET, AND = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06, 0x54
OFFSET_NUMBER, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16

CLONE3 = 435  # its flags lie behind a pointer; ENOSYS makes the C library use clone
CLONE_THREAD = 0x00010000
CLONE_NEW_ANY = 0x7E020000  # every CLONE_NEW* flag that clone takes (NEWTIME is for clone3 only, which is denied)
AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET = 1, 1, 5
RLIMIT_CPU, RLIMIT_STACK = 0, 3
SIGKILL = 9
PR_SET_PDEATHSIG, PR_SET_SECCOMP = 1, 22
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

# Beyond Landlock and RLIMIT_FSIZE: modes and times of any file (said to be done, which is what copying a file wants to
# hear), disk space behind the end of a file and, before Linux 6.2, cutting files short by name (or while opening them:
# see _open_rule; the flags of openat2 lie behind a pointer).
MODES_AND_TIMES = ("chmod", "fchmod", "fchmodat", "utime", "utimes", "utimensat", "futimesat")
UNGUARDED = ("fallocate", "truncate", "openat2", *MODES_AND_TIMES)
# Locks on files that other programs see as well, and orders to the page cache that they could measure: said to be done.
# A program of one process has nobody to lock out.
PAGE_CACHE = ("fadvise64", "readahead")
LOCKS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW and the same for open file descriptions
O_ACCMODE, O_WRONLY, O_RDWR, O_TRUNC = 3, 1, 2, 0x200

PID_MARK = 0x7FABCDEF  # replaced by the program's own pid when the filter is installed

Code = list[tuple[int, int, int, int]]  # (operation, jump if true, jump if false, constant)
Rules = dict[int, Code | int]  # system call number -> action, or code that ends in one


def zygote_filter(machine: str, own_files: bool, num_processes: int = 0) -> bytes:
    """What the zygote and everything below it may do: the allow-list, process creation and signals included.

    `own_files`: whether they live in a file system of their own. Elsewhere what neither Landlock nor a limit guards is
    out of reach.
    """
    rules: Rules = {CLONE3: ENOSYS}
    if own_files and num_processes:  # semaphores between processes are made by linking a file to its name
        rules.update(dict.fromkeys(syscalls.numbers(syscalls.LINKS, machine).values(), ALLOW))
    first, last = syscalls.EXTENDED_ATTRIBUTES[machine]
    rules.update(
        dict.fromkeys(range(first, last + 1), ENOTSUP)
    )  # there are none, which those who copy files understand
    rules.update(dict.fromkeys(syscalls.numbers(syscalls.ALLOWED, machine).values(), ALLOW))
    for name, number in syscalls.numbers(syscalls.CHECKED, machine).items():
        rules[number] = _shared_rule(name)
    if not own_files:
        allowed = syscalls.numbers(syscalls.ALLOWED, machine)
        rules.update({allowed[name]: EPERM for name in UNGUARDED if name in allowed})
        rules.update({allowed[name]: DONE for name in MODES_AND_TIMES if name in allowed})
        rules.update({allowed[name]: _open_rule(at) for name, at in (("open", 1), ("openat", 2)) if name in allowed})
    return _assemble(machine, rules, otherwise=EPERM)


def worker_filter(machine: str, num_processes: int) -> bytes:
    """What a worker gives up on top: processes (unless allowed some), signals to anything but itself, its CPU limit.

    PID_MARK stands where the program's pid belongs. A program cannot end by SIGKILL of its own doing (it gets SIGSYS
    for trying), so one that did was killed from outside.
    """
    numbers, allowed = syscalls.numbers(syscalls.CHECKED, machine), syscalls.numbers(syscalls.ALLOWED, machine)
    rules: Rules = {allowed[name]: DONE for name in PAGE_CACHE}
    if not num_processes:
        rules[numbers["clone"]] = _flags_rule(forbidden=0, required=CLONE_THREAD)
        rules.update({numbers[name]: EPERM for name in ("fork", "vfork") if name in numbers})
        rules[allowed["flock"]] = DONE
        rules[numbers["fcntl"]] = _done_for(1, LOCKS)
    others = num_processes > 0
    rules.update({numbers["kill"]: _signal_rule(1, others), numbers["tgkill"]: _signal_rule(2, others)})
    rules.update(
        {numbers["prlimit64"]: _prlimit_rule((RLIMIT_STACK,)), numbers["setrlimit"]: _one_of(0, (RLIMIT_STACK,))}
    )
    rules[numbers["prctl"]] = _one_of(0, PRCTL_OPTIONS)
    return _assemble(machine, rules, otherwise=ALLOW)


def _assemble(machine: str, rules: Rules, otherwise: int) -> bytes:
    code: Code = [
        (LD_ABS, 0, 0, OFFSET_ARCH),
        (JEQ, 1, 0, syscalls.AUDIT_ARCH[machine]),
        (RET, 0, 0, KILL),
        (LD_ABS, 0, 0, OFFSET_NUMBER),
        (JGE, 0, 1, syscalls.HIGHEST_KNOWN + 1),  # x32 numbers lie there too
        (RET, 0, 0, ENOSYS),
        *_search(_ranges(rules), otherwise),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _ranges(rules: Rules) -> list[tuple[int, int, Code | int]]:
    """Rules as sorted (first, last, rule), neighbours with the same plain action merged."""
    merged: list[tuple[int, int, Code | int]] = []
    for number in sorted(rules):
        rule = rules[number]
        if merged and merged[-1][1] == number - 1 and isinstance(rule, int) and merged[-1][2] == rule:
            merged[-1] = (merged[-1][0], number, rule)
        else:
            merged.append((number, number, rule))
    return merged


def _search(ranges: list[tuple[int, int, Code | int]], otherwise: int) -> Code:
    """Binary search over the ranges; `otherwise` is the action for a number in none of them."""
    if len(ranges) == 1:
        first, last, rule = ranges[0]
        body = [(RET, 0, 0, rule)] if isinstance(rule, int) else rule
        return [(JGE, 0, 1, first), (JGE, 0, 1, last + 1), (RET, 0, 0, otherwise), *body]
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle], otherwise), _search(ranges[middle:], otherwise)
    return [(JGE, 0, 1, ranges[middle][0]), (JA, 0, 0, len(left)), *left, *right]


def _shared_rule(name: str) -> Code | int:
    """What `name` may do in the zygote and, unless the worker's own filter forbids it, in a worker."""
    if name in ("fork", "vfork", "kill", "tgkill"):
        return ALLOW
    if name == "clone":
        return _flags_rule(forbidden=CLONE_NEW_ANY, required=0)
    if name == "prlimit64":
        return _prlimit_rule((RLIMIT_CPU, RLIMIT_STACK))
    if name == "socketpair":
        return _socketpair_rule()
    argument, values = {
        "setrlimit": (0, (RLIMIT_CPU, RLIMIT_STACK)),
        "prctl": (0, (*PRCTL_OPTIONS, PR_SET_PDEATHSIG, PR_SET_SECCOMP)),
        "ioctl": (1, IOCTL_REQUESTS),
        "fcntl": (1, FCNTL_COMMANDS),
    }[name]
    return _one_of(argument, values)


def _flags_rule(forbidden: int, required: int) -> Code:
    """Allow a clone whose flags have none of `forbidden` and, if not 0, one of `required`."""
    code: Code = [_low(0)]
    if forbidden:
        code += [(JSET, 0, 1, forbidden), (RET, 0, 0, EPERM)]
    if required:
        code += [(JSET, 1, 0, required), (RET, 0, 0, EPERM)]
    return [*code, (RET, 0, 0, ALLOW)]


def _socketpair_rule() -> Code:
    """Connected Unix pairs only: a datagram pair could send to any address by name."""
    return [
        _low(0),
        (JEQ, 1, 0, AF_UNIX),
        (RET, 0, 0, EPERM),
        _low(1),
        (AND, 0, 0, 0xF),
        (JEQ, 1, 0, SOCK_STREAM),
        (JEQ, 0, 1, SOCK_SEQPACKET),
        (RET, 0, 0, ALLOW),
        (RET, 0, 0, EPERM),
    ]


def _open_rule(flags_argument: int) -> Code:
    """O_TRUNC only together with the right to write, for which Landlock asks on every kernel."""
    return [
        _low(flags_argument),
        (JSET, 1, 0, O_TRUNC),
        (RET, 0, 0, ALLOW),
        (AND, 0, 0, O_ACCMODE),
        (JEQ, 2, 0, O_WRONLY),
        (JEQ, 1, 0, O_RDWR),
        (RET, 0, 0, EPERM),
        (RET, 0, 0, ALLOW),
    ]


def _prlimit_rule(lowerable: tuple[int, ...]) -> Code:
    """Reading limits is free; of the own ones, those in `lowerable` may be set (never above the hard limit)."""
    code: Code = [
        (LD_ABS, 0, 0, OFFSET_ARGS),
        (JEQ, 1, 0, 0),  # pid 0: itself
        (RET, 0, 0, EPERM),
        _low(1),
    ]
    for limit in lowerable:
        code += [(JEQ, 0, 1, limit), (RET, 0, 0, ALLOW)]
    return [
        *code,
        _low(2),
        (JEQ, 0, 2, 0),
        (LD_ABS, 0, 0, OFFSET_ARGS + 20),
        (JEQ, 1, 0, 0),
        (RET, 0, 0, EPERM),
        (RET, 0, 0, ALLOW),
    ]


def _signal_rule(signal_argument: int, others: bool) -> Code:
    """Signals to the program itself; for SIGKILL it dies of SIGSYS instead.

    `others`: to other processes of its namespace as well, one by one, which are its own but for process 1.
    """
    elsewhere: Code = [(RET, 0, 0, EPERM)]
    if others:
        elsewhere = [(JGE, 0, 1, 2), (JGE, 0, 1, 1 << 31), (RET, 0, 0, EPERM), (RET, 0, 0, ALLOW)]
    return [
        _low(0),
        (JEQ, len(elsewhere), 0, PID_MARK),
        *elsewhere,
        _low(signal_argument),
        (JEQ, 0, 1, SIGKILL),
        (RET, 0, 0, KILL),
        (RET, 0, 0, ALLOW),
    ]


def _done_for(argument: int, values: tuple[int, ...]) -> Code:
    """Pretend to have done it where the low 32 bits of `argument` equal one of `values`."""
    code: Code = [_low(argument)]
    for value in values:
        code += [(JEQ, 0, 1, value), (RET, 0, 0, DONE)]
    return [*code, (RET, 0, 0, ALLOW)]


def _low(argument: int) -> tuple[int, int, int, int]:
    return (LD_ABS, 0, 0, OFFSET_ARGS + 8 * argument)


def _one_of(argument: int, values: tuple[int, ...]) -> Code:
    """Allow if the low 32 bits of `argument` equal one of `values` (the kernel reads these arguments as int)."""
    code: Code = [_low(argument)]
    for value in values:
        code += [(JEQ, 0, 1, value), (RET, 0, 0, ALLOW)]
    return [*code, (RET, 0, 0, EPERM)]
