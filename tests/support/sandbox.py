"""The sandbox of a systemd unit, made by the means of the kernel that systemd uses: mounts, capabilities, seccomp.

Run as a program in three stages, each by the one before: mounts, then a user without capabilities, then filters of
system calls. Left out: ProtectHome, and PrivateTmp for /tmp: the interpreter and the folders of tests
may lie there.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy import Unit, relocate_paths

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET. Source: linux/sched.h."""

SHM_EXEC = 0o100000
"""Flag of shmat. Source: linux/shm.h."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""Devices that PrivateDevices leaves. Source: systemd.exec(5)."""


def sandbox_of(unit: Unit, machine: Path) -> list[str]:
    """Return the command that runs another one in the sandbox of a unit. Skips the test where that cannot be made."""
    pytest.importorskip("pyseccomp", reason="no pyseccomp: it filters system calls on Linux only")
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "systemd-analyze"))):
        pytest.skip("only root with unshare, setpriv and systemd-analyze makes a sandbox")
    probe = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
    if probe.returncode != 0:
        pytest.skip("this machine permits no mounts")
    writable = [path.removeprefix("-") for path in unit.settings("ReadWritePaths")]
    writable += [f"/var/lib/{name}" for name in unit.settings("StateDirectory")]
    writable += [f"/var/log/{name}" for name in unit.settings("LogsDirectory")]
    plan = {
        "writable": [relocate_paths(path, machine) for path in writable],
        "syscalls": sorted(allowed_syscalls(unit.settings("SystemCallFilter"))),
        "families": [int(getattr(socket, name)) for name in unit.settings("RestrictAddressFamilies")[0].split()],
    }
    stage = [sys.executable, "-m", "tests.support.sandbox", "mounts", json.dumps(plan)]
    return ["unshare", "--mount", "--ipc", "--uts", "--propagation", "private", *stage]


def allowed_syscalls(filters: Sequence[str]) -> set[str]:
    """Return the system calls that filters allow: a list begins with `~` if it forbids."""
    allowed: set[str] = set()
    for value in filters:
        names = {name for word in value.removeprefix("~").split() for name in expand_group(word)}
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed | set(expand_group("@default"))


def expand_group(name: str) -> Iterator[str]:
    """Yield the system calls of a group of systemd, or the name itself."""
    if not name.startswith("@"):
        yield name
        return
    shown = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    for line in shown.stdout.splitlines()[1:]:
        if word := line.partition("#")[0].strip():
            yield from expand_group(word)


def mount(*words: str) -> None:
    """Mount or remount a file system, as the program of that name does."""
    subprocess.run(["mount", *words], check=True)


def make_mounts(writable: Sequence[str]) -> None:
    """Make the file system read-only except these folders, /proc without other processes, and /dev without devices."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = {line.split()[4] for line in lines}
    for point in sorted(points - {"/proc", "/dev"}):
        if not point.startswith(("/proc/", "/dev/")):
            mount("-o", "remount,bind,ro", point)
    for path in filter(os.path.isdir, writable):
        mount("--bind", path, path)
        mount("-o", "remount,bind,rw", path)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/var/tmp")
    mount("-t", "proc", "-o", "subset=pid,hidepid=invisible", "proc", "/proc")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
    for name in DEVICES:
        Path("/mnt", name).touch()
        mount("--bind", f"/dev/{name}", f"/mnt/{name}")
    Path("/mnt/shm").mkdir()
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/mnt/shm")
    mount("--rbind", "/mnt", "/dev")


def load_filters(syscalls: Sequence[str], families: Sequence[int]) -> None:
    """Filter system calls as systemd does for the settings of the unit: one filter each, the list of calls last."""
    import pyseccomp as seccomp

    refuse, masked = seccomp.ERRNO(errno.EPERM), seccomp.MASKED_EQ
    other = seccomp.SyscallFilter(seccomp.ALLOW)
    executable, written = mmap.PROT_EXEC, mmap.PROT_EXEC | mmap.PROT_WRITE
    other.add_rule(refuse, "mmap", seccomp.Arg(2, masked, written, written))  # MemoryDenyWriteExecute
    for name in ("mprotect", "pkey_mprotect"):
        other.add_rule(refuse, name, seccomp.Arg(2, masked, executable, executable))
    other.add_rule(refuse, "shmat", seccomp.Arg(2, masked, SHM_EXEC, SHM_EXEC))
    other.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")  # RestrictNamespaces
    for name in ("unshare", "setns"):
        other.add_rule(refuse, name)
    for flag in (1 << bit for bit in range(32) if NAMESPACE_FLAGS >> bit & 1):
        other.add_rule(refuse, "clone", seccomp.Arg(0, masked, flag, flag))
    for name, position in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2)):
        for bit in (0o4000, 0o2000):  # RestrictSUIDSGID
            other.add_rule(refuse, name, seccomp.Arg(position, masked, bit, bit))
    other.add_rule(refuse, "personality", seccomp.Arg(0, seccomp.NE, 0))  # LockPersonality
    for family in set(range(46)) - set(families):  # RestrictAddressFamilies
        other.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), "socket", seccomp.Arg(0, seccomp.EQ, family))
    listed = seccomp.SyscallFilter(refuse)
    for name in syscalls:
        if seccomp.resolve_syscall(seccomp.system_arch(), name) >= 0:
            listed.add_rule(seccomp.ALLOW, name)
    other.load()
    listed.load()


def main(stage: str, plan_text: str, *command: str) -> None:
    """Run a stage, and then the next one, or the command."""
    plan: dict[str, Any] = json.loads(plan_text)
    if stage == "mounts":
        make_mounts(plan["writable"])
        privileges = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        filters = [sys.executable, "-m", "tests.support.sandbox", "filters", plan_text]
        words = ["unshare", "--user", "--map-root-user", *privileges, *filters, *command]
    else:
        load_filters(plan["syscalls"], plan["families"])
        words = list(command)
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(*sys.argv[1:])
