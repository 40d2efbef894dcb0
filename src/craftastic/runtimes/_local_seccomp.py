"""The filter of system calls for local sandboxes, as a BPF program (sans-I/O).

It keeps out what a development environment has no use for and what kernels were broken with, on
x86_64 and aarch64. 32-bit calls (i386, x32) do not exist in a sandbox.

Source: seccomp(2), linux/filter.h, linux/seccomp.h, linux/audit.h; the numbers are those of
asm/unistd_64.h and asm-generic/unistd.h.
"""

import errno
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16

X32_BIT = 0x40000000
NAMESPACES = 0x7E020080
"""CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}: no new namespaces inside a sandbox."""

CLONE_NAMESPACES = NAMESPACES & ~0xFF
"""The same for clone, whose lowest byte is a signal and not flags."""

TERMINAL_INJECTION = (0x5412, 0x541C)
"""The ioctls TIOCSTI and TIOCLINUX: typing into somebody's terminal."""

SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; the others (vsock, packet, crypto …) are refused."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One kind of processor: its audit number and its calls' numbers."""

    audit: int
    clone: int
    unshare: int
    ioctl: int
    socket: int
    denied: Mapping[str, int]
    has_x32: bool = False


COMMON: Final = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
CLONE3: Final = 435
"""Its flags are in memory, which a filter cannot read: it does not exist, and libc uses clone."""

X86_64: Final = Machine(
    audit=0xC000003E,
    clone=56,
    unshare=272,
    ioctl=16,
    socket=41,
    has_x32=True,
    denied={
        **COMMON,
        "syslog": 103,
        "uselib": 134,
        "pivot_root": 155,
        "_sysctl": 156,
        "chroot": 161,
        "acct": 163,
        "settimeofday": 164,
        "mount": 165,
        "umount2": 166,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "sethostname": 170,
        "setdomainname": 171,
        "iopl": 172,
        "ioperm": 173,
        "create_module": 174,
        "init_module": 175,
        "delete_module": 176,
        "query_module": 178,
        "quotactl": 179,
        "nfsservctl": 180,
        "lookup_dcookie": 212,
        "clock_settime": 227,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "migrate_pages": 256,
        "move_pages": 279,
        "perf_event_open": 298,
        "fanotify_init": 300,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "clock_adjtime": 305,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "finit_module": 313,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
    },
)

AARCH64: Final = Machine(
    audit=0xC00000B7,
    clone=220,
    unshare=97,
    ioctl=29,
    socket=198,
    denied={
        **COMMON,
        "lookup_dcookie": 18,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "nfsservctl": 42,
        "chroot": 51,
        "quotactl": 60,
        "acct": 89,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "clock_settime": 112,
        "syslog": 116,
        "reboot": 142,
        "sethostname": 161,
        "setdomainname": 162,
        "settimeofday": 170,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "swapon": 224,
        "swapoff": 225,
        "migrate_pages": 238,
        "move_pages": 239,
        "perf_event_open": 241,
        "fanotify_init": 262,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "clock_adjtime": 266,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "finit_module": 273,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
    },
)

MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": X86_64,
    "amd64": X86_64,
    "aarch64": AARCH64,
    "arm64": AARCH64,
}

Instruction = tuple[int, int, int, int]


def build(machine: str) -> bytes | None:
    """Return the program for a machine that `platform.machine()` names; None for an unknown one."""
    known = MACHINES.get(machine)
    if known is None:
        return None
    return b"".join(struct.pack("=HBBI", *one) for one in _program(known))


def _program(machine: Machine) -> Iterator[Instruction]:
    yield LOAD_WORD, 0, 0, ARCH_AT
    yield JUMP_EQUAL, 1, 0, machine.audit
    yield RETURN, 0, 0, ERRNO | errno.ENOSYS
    yield LOAD_WORD, 0, 0, NUMBER_AT
    if machine.has_x32:
        yield from _refuse_if(JUMP_AT_LEAST, X32_BIT, errno.ENOSYS)
    yield from _refuse_if(JUMP_EQUAL, CLONE3, errno.ENOSYS)
    for number in sorted(machine.denied.values()):
        yield from _refuse_if(JUMP_EQUAL, number, errno.EPERM)
    yield from _refuse_flags(machine.clone, CLONE_NAMESPACES)
    yield from _refuse_flags(machine.unshare, NAMESPACES)
    refusals = [
        one for code in TERMINAL_INJECTION for one in _refuse_if(JUMP_EQUAL, code, errno.EPERM)
    ]
    yield from _when(machine.ioctl, argument=1, then=refusals)
    families: list[Instruction] = []
    for left, family in zip(range(len(SOCKET_FAMILIES) - 1, -1, -1), SOCKET_FAMILIES, strict=True):
        families.append((JUMP_EQUAL, left + 1, 0, family))
    families.append((RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT))
    yield from _when(machine.socket, argument=0, then=families)
    yield RETURN, 0, 0, ALLOW


def _refuse_if(jump: int, value: int, number: int) -> Iterator[Instruction]:
    yield jump, 0, 1, value
    yield RETURN, 0, 0, ERRNO | number


def _refuse_flags(call: int, flags: int) -> Iterator[Instruction]:
    refusal = list(_refuse_if(JUMP_ANY_BIT, flags, errno.EPERM))
    yield from _when(call, argument=0, then=refusal)


def _when(call: int, *, argument: int, then: list[Instruction]) -> Iterator[Instruction]:
    """Look at the low half of one argument of one call, then at the call's number again.

    The kernel takes flags, ioctl codes and families as 32 bits, so the high half means nothing.
    Both machines are little-endian: the low half comes first.
    """
    yield JUMP_EQUAL, 0, len(then) + 2, call
    yield LOAD_WORD, 0, 0, ARGUMENTS_AT + 8 * argument
    yield from then
    yield LOAD_WORD, 0, 0, NUMBER_AT
