"""The filters are run here on an interpreter of our own, for both architectures, call by call."""

import os
import struct

import pytest

from sandboxes import seccomp, syscalls

MACHINES = ["x86_64", "aarch64"]
PID = 4321


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int | None = None) -> int:
    """Classic BPF over struct seccomp_data: the returned action."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=iIQ6Q", number - (1 << 32) if number >= 1 << 31 else number, arch, 0, *padded)
    accumulator, at = 0, 0
    while True:
        operation, true, false, constant = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if operation == seccomp.LD_ABS:
            accumulator = struct.unpack_from("=I", data, constant)[0]
        elif operation == seccomp.RET:
            return constant
        elif operation == seccomp.JA:
            at += constant
        elif operation == seccomp.AND:
            accumulator &= constant
        else:
            met = {seccomp.JEQ: accumulator == constant, seccomp.JGE: accumulator >= constant,
                   seccomp.JSET: bool(accumulator & constant)}[operation]  # fmt: skip
            at += true if met else false


class Box:
    """Both filters of a box, as the kernel combines them: the strictest action wins."""

    def __init__(self, machine: str, num_processes: int = 0, own_files: bool = True):
        self.arch = syscalls.AUDIT_ARCH[machine]
        self.names = syscalls.numbers(syscalls.ALLOWED + syscalls.CHECKED, machine)
        mark, pid = struct.pack("=I", seccomp.PID_MARK), struct.pack("=I", PID)
        self.outer = seccomp.zygote_filter(machine, own_files)
        self.inner = seccomp.worker_filter(machine, num_processes).replace(mark, pid)

    def allows(self, call: str | int, *arguments: int) -> bool:
        number = self.names[call] if isinstance(call, str) else call
        return all(run(code, number, arguments, self.arch) == seccomp.ALLOW for code in (self.outer, self.inner))


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_allowed_and_every_other_number_is_not(machine):
    box = Box(machine)
    listed = syscalls.numbers(syscalls.ALLOWED, machine)
    checked = set(syscalls.numbers(syscalls.CHECKED, machine).values())
    pretended = {listed[name] for name in (*seccomp.PAGE_CACHE, "flock")}
    for number in range(700):
        if number not in checked | pretended:
            assert box.allows(number) == (number in listed.values()), number


@pytest.mark.parametrize("machine", MACHINES)
def test_dangerous_calls_are_not_listed(machine):
    dangerous = {
        "x86_64": {"socket": 41, "connect": 42, "bind": 49, "execve": 59, "ptrace": 101, "mount": 165, "setns": 308,
                   "bpf": 321, "timer_create": 222,
                   "memfd_create": 319, "process_vm_readv": 310, "io_uring_setup": 425, "setuid": 105, "symlink": 88,
                   "mknod": 133, "shmget": 29, "keyctl": 250, "unshare": 272, "chroot": 161, "seccomp": 317,
                   "pidfd_open": 434, "tkill": 200, "rt_sigqueueinfo": 129, "setxattr": 188, "mq_open": 240},
        "aarch64": {"socket": 198, "connect": 203, "bind": 200, "execve": 221, "ptrace": 117, "mount": 40, "setns": 268,
                    "bpf": 280, "memfd_create": 279, "process_vm_readv": 270, "io_uring_setup": 425, "setuid": 146,
                    "symlinkat": 36, "mknodat": 33, "shmget": 194, "keyctl": 219, "unshare": 97, "chroot": 51,
                    "seccomp": 277, "pidfd_open": 434, "tkill": 130, "rt_sigqueueinfo": 138, "setxattr": 5,
                    "mq_open": 180,
                    "timer_create": 107},
    }[machine]  # fmt: skip
    box = Box(machine)
    assert [name for name, number in dangerous.items() if box.allows(number)] == []


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_are_allowed_processes_and_namespaces_are_not(machine):
    box, parent = Box(machine), Box(machine, num_processes=2)
    thread_flags = 0x3D0F00
    assert box.allows("clone", thread_flags)
    assert not box.allows("clone", 17)
    assert parent.allows("clone", 17)
    for namespace in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x2000000, 0x4000000, 0x8000000):
        assert not box.allows("clone", thread_flags | namespace)
        assert not parent.allows("clone", 17 | namespace)
    assert run(box.outer, 435, (), box.arch) == seccomp.ENOSYS  # clone3


@pytest.mark.parametrize("machine", MACHINES)
def test_signals_reach_only_the_program_itself(machine):
    box = Box(machine)
    assert box.allows("kill", PID, 15)
    assert box.allows("tgkill", PID, PID, 6)
    for number, arguments in ((box.names["kill"], (PID, 9)), (box.names["tgkill"], (PID, PID, 9))):
        assert run(box.inner, number, arguments, box.arch) == seccomp.KILL
    for other in (1, 0, PID + 1, (1 << 64) - 1, (1 << 32) - 1):
        assert not box.allows("kill", other, 9)
        assert not box.allows("tgkill", other, PID, 9)


@pytest.mark.parametrize("machine", MACHINES)
def test_limits_may_be_read_and_only_the_stack_set(machine):
    box = Box(machine)
    assert box.allows("prlimit64", 0, 7, 0, 4096)
    assert box.allows("prlimit64", 0, 3, 4096, 0)
    assert run(box.outer, box.names["prlimit64"], (0, 0, 4096, 0), box.arch) == seccomp.ALLOW  # set for the box
    assert not box.allows("prlimit64", 0, 0, 4096, 0)  # the hard limit on CPU time ends in SIGKILL
    assert not box.allows("prlimit64", 0, 7, 4096, 0)
    assert not box.allows("prlimit64", 0, 9, 1 << 32, 0)  # a pointer whose low half is zero
    assert not box.allows("prlimit64", 1, 3, 4096, 0)


@pytest.mark.parametrize("machine", MACHINES)
def test_socketpairs_are_unix_streams_only(machine):
    box = Box(machine)
    assert box.allows("socketpair", 1, 1 | 0o2000000 | 0o4000)
    assert box.allows("socketpair", 1, 5)
    assert not box.allows("socketpair", 1, 2)
    assert not box.allows("socketpair", 2, 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_descriptor_owners_terminals_and_process_options_are_out_of_reach(machine):
    box = Box(machine)
    assert box.allows("fcntl", 3, 4)
    assert not any(box.allows("fcntl", 3, command) for command in (8, 10, 15, 1024, 1026))
    assert box.allows("ioctl", 1, 0x5401)
    assert not box.allows("ioctl", 1, 0x5412)
    assert box.allows("prctl", 15)
    assert not any(box.allows("prctl", option) for option in (1, 4, 22, 24, 35, 38))


@pytest.mark.parametrize("machine", MACHINES)
def test_without_files_of_its_own_a_program_cannot_change_modes_or_times(machine):
    names = [name for name in seccomp.UNGUARDED if name in syscalls.numbers(syscalls.ALLOWED, machine)]
    assert names
    assert all(Box(machine).allows(name) for name in names)
    assert not any(Box(machine, own_files=False).allows(name) for name in names)


@pytest.mark.parametrize("machine", MACHINES)
def test_without_files_of_its_own_a_program_cuts_files_short_only_where_it_may_write(machine):
    box = Box(machine, own_files=False)
    for name, before in [("openat", (0, 0))] + [("open", (0,))] * (machine == "x86_64"):
        for flags in (0, 1, 2, 3, os.O_CREAT | 1, os.O_TRUNC | 1, os.O_TRUNC | os.O_CREAT | 2):
            assert box.allows(name, *before, flags)
        for flags in (os.O_TRUNC, os.O_TRUNC | 3, os.O_TRUNC | os.O_CREAT):
            assert not box.allows(name, *before, flags)
            assert Box(machine).allows(name, *before, flags)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_architecture_kills_and_new_numbers_do_not_exist(machine):
    program = seccomp.zygote_filter(machine, own_files=True)
    assert run(program, 20, (), 0x40000003) == seccomp.KILL  # i386
    assert run(program, syscalls.HIGHEST_KNOWN + 1, (), syscalls.AUDIT_ARCH[machine]) == seccomp.ENOSYS
    assert run(program, 0x40000000 + 39, (), syscalls.AUDIT_ARCH[machine]) == seccomp.ENOSYS  # x32
