"""The filter's program, run by a small interpreter of BPF: what the kernel would answer."""

import errno
import struct

import pytest

from craftastic.runtimes import _local_seccomp as seccomp

ALLOW = seccomp.ALLOW
NEW_USER = 0x10000000
AUDIT_I386 = 0x40000003


def answer(program: bytes, number: int, *arguments: int, audit: int) -> int:
    data = struct.pack("<IIQ6Q", number, audit, 0, *[*arguments, *[0] * 6][:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        kind, if_true, if_false, value = code[at]
        at += 1
        match kind:
            case seccomp.LOAD_WORD:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case seccomp.JUMP_EQUAL:
                at += if_true if accumulator == value else if_false
            case seccomp.JUMP_AT_LEAST:
                at += if_true if accumulator >= value else if_false
            case seccomp.JUMP_ANY_BIT:
                at += if_true if accumulator & value else if_false
            case seccomp.RETURN:
                return value
            case _:
                raise AssertionError(kind)


@pytest.fixture(params=["x86_64", "aarch64"])
def filtered(request):
    machine = seccomp.MACHINES[request.param]
    program = seccomp.build(request.param)
    assert program is not None

    def ask(number: int, *arguments: int, audit: int = machine.audit) -> int:
        found = answer(program, number, *arguments, audit=audit)
        return 0 if found == ALLOW else found & 0xFFFF

    return machine, ask


def test_every_denied_call_is_refused_and_its_neighbours_are_not(filtered):
    machine, ask = filtered
    denied = set(machine.denied.values())

    for name, number in machine.denied.items():
        assert ask(number) == errno.EPERM, name
    special = {machine.socket, seccomp.CLONE3}
    for number in set(range(450)) - denied - special:
        assert ask(number) == 0, number


def test_new_namespaces_are_refused_and_threads_and_children_are_not(filtered):
    machine, ask = filtered
    thread = 0x3D0F00
    child = 0x01200011

    assert ask(machine.clone, thread) == 0
    assert ask(machine.clone, child) == 0
    for flag in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, NEW_USER, 0x20000000, 0x40000000):
        assert ask(machine.unshare, flag) == errno.EPERM, hex(flag)
        if flag > 0xFF:
            assert ask(machine.clone, child | flag) == errno.EPERM, hex(flag)
    assert ask(machine.unshare, 0x400) == 0
    assert ask(seccomp.CLONE3, 0) == errno.ENOSYS


def test_typing_into_a_terminal_is_refused_whatever_the_high_half_says(filtered):
    machine, ask = filtered

    for code in (0x5412, 0x541C, 0x5412 | 1 << 32):
        assert ask(machine.ioctl, 0, code) == errno.EPERM
    assert ask(machine.ioctl, 0, 0x5401) == 0
    assert ask(machine.ioctl, 0x5412, 0x5413) == 0


def test_only_the_everyday_socket_families_exist(filtered):
    machine, ask = filtered

    assert [family for family in range(64) if ask(machine.socket, family) == 0] == [1, 2, 10, 16]
    assert ask(machine.socket, 40) == errno.EAFNOSUPPORT


def test_calls_of_another_architecture_do_not_exist(filtered):
    machine, ask = filtered

    assert ask(1, audit=AUDIT_I386) == errno.ENOSYS
    if machine.has_x32:
        assert ask(0x40000000 | 1) == errno.ENOSYS


def test_an_unknown_machine_has_no_filter():
    assert seccomp.build("riscv64") is None
