"""Runs a program under what a systemd unit lets it do: sandbox.py UNIT PROGRAM ARGUMENT...

Of the unit's restrictions these can be had without systemd: SystemCallFilter= with SystemCallErrorNumber=, and
MemoryDenyWriteExecute=. They are seccomp filters, loaded here as systemd loads them, and stay over exec. The groups of
system calls are systemd's own (systemd-analyze syscall-filter)."""
import ctypes
import errno
import os
import re
import subprocess
import sys

ALLOW = 0x7FFF0000
MASKED_EQUAL = 7
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000


class Compare(ctypes.Structure):  # struct scmp_arg_cmp
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64)]


def settings(unit):
    with open(unit, encoding="utf-8") as file:
        return re.findall(r"^(\w+)=(.*)$", file.read(), re.M)


def members(name):
    """The system calls of a group, or the one that it is."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    return set().union(*(members(word) for word in words if word and not word.startswith("#")))


def allowed(unit):
    """None: the unit filters nothing."""
    calls = None
    for key, value in settings(unit):
        if key == "SystemCallFilter":
            names = set().union(*map(members, value.lstrip("~").split()))
            calls = calls - names if value.startswith("~") else (calls or members("@default")) | names
    return calls


def load(lib, default, rules):
    """rules: (system call, action, comparisons)."""
    context = lib.seccomp_init(default)
    for name, action, compare in rules:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # negative: of another architecture
            array = (Compare * len(compare))(*compare)
            if lib.seccomp_rule_add_array(context, action, number, len(compare), array):
                sys.exit(f"sandbox.py: cannot filter {name}")
    if lib.seccomp_load(context):
        sys.exit("sandbox.py: cannot load a filter")
    lib.seccomp_release(context)


def confine(unit):
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_load.argtypes = lib.seccomp_release.argtypes = [ctypes.c_void_p]
    lib.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare)]  # fmt: skip
    refuse = 0x00050000 | errno.EPERM
    calls = allowed(unit)
    if ("MemoryDenyWriteExecute", "yes") in settings(unit):
        both = PROT_WRITE | PROT_EXEC
        load(lib, ALLOW, [
            ("mmap", refuse, [Compare(2, MASKED_EQUAL, both, both)]),
            ("mprotect", refuse, [Compare(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC)]),
            ("pkey_mprotect", refuse, [Compare(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC)]),
            ("shmat", refuse, [Compare(2, MASKED_EQUAL, SHM_EXEC, SHM_EXEC)]),
        ])  # fmt: skip
    if calls is not None:
        # seccomp itself is needed to load what comes after the first filter, and to load this one.
        load(lib, refuse, [(name, ALLOW, []) for name in sorted(calls)])


if __name__ == "__main__":
    confine(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
