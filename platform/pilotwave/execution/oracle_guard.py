"""The guard of an oracle's process: a tiny process between driver and oracle that never runs foreign code.

Run as a script (not ``-m``: it must import nothing but the standard library, to stay small and unable to
hang): ``python -P oracle_guard.py <lifeline fd> <worker fd> <sys.path as JSON> <bytes, or 0>``. It forks the worker
and then waits for one of four things. A byte on the lifeline: the driver wants the worker gone, now. The lifeline
closes without one: the driver was itself killed, so the worker gets a grace in which to finish its answer and
leave the receipt. The worker dies: by a crash, the kernel, or because it is done. The worker holds more memory than
it may. In each case the guard kills whatever the worker left running, reports the worker's wait status through the
lifeline, and exits.

Why memory is watched instead of forbidden: a limit of the kernel on a process (RLIMIT_AS, RLIMIT_DATA) counts
address space that is only reserved, of which numerical libraries, CUDA and Java take many times what they use; it
does not add up the programs that an oracle starts; and what then fails is some allocation in the middle of foreign
code, which may hang, or give a wrong answer. What is counted here is what the worker and all that came of it really
hold, ten times a second: anonymous and shared memory, swapped out or not. What takes more than the machine has left
within a tenth of a second is the kernel's to end.

Why a guard: an oracle stuck in native code holds the interpreter lock, so no thread of its own process can
notice that the driver is gone; and the kernel's parent-death signal fires when the *thread* that started the
child ends, which is wrong for a driver with a thread pool. The guard has one thread, so for the worker the
signal is right: it dies with the guard, and the guard dies with the driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path

ORPHAN_GRACE_SECONDS = 10.0
"""How long an answer that is on its way may outlive a killed driver: it is paid for already."""

ENDED = struct.Struct("<iq")
"""What the guard reports at last: the worker's wait status, and the bytes it held if that was too much, else 0."""
MEMORY_SECONDS = 0.1
"""How often memory is looked at."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Forks the worker, which serves in the child process, and watches over it in this one."""
    lifeline = socket.socket(fileno=int(sys.argv[1]))
    worker_fd = int(sys.argv[2])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    guard = os.getpid()
    worker = os.fork()
    if worker:
        os.close(worker_fd)
        _watch(worker, lifeline, woken, int(sys.argv[4]))
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    lifeline.close()
    os.close(wake)
    os.close(woken)
    _become_worker(guard, worker_fd)


def _become_worker(guard: int, worker_fd: int) -> None:
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it died before the signal was armed
        os._exit(1)
    os.set_inheritable(worker_fd, False)
    sys.path[:] = json.loads(sys.argv[3])
    from pilotwave.execution.oracle_child import serve

    serve(socket.socket(fileno=worker_fd))


class _OverMemory(Exception):
    def __init__(self, held: int) -> None:
        self.held = held


def _watch(worker: int, lifeline: socket.socket, woken: int, memory_limit: int) -> None:
    held = 0
    try:
        status = _wait_for(worker, woken, lifeline.fileno(), None, memory_limit)
        if status is None and not lifeline.recv(1):
            status = _wait_for(worker, woken, None, ORPHAN_GRACE_SECONDS, memory_limit)
    except _OverMemory as error:
        status, held = None, error.held
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)
    if status is None:
        os.kill(worker, signal.SIGKILL)  # by itself too: it may not have become the head of a group yet
        _, status = os.waitpid(worker, 0)
    _kill_orphans()
    with contextlib.suppress(OSError):
        lifeline.sendall(ENDED.pack(status, held))


def _wait_for(
    worker: int, woken: int, lifeline: int | None, seconds: float | None, memory_limit: int
) -> int | None:
    """Returns the worker's wait status once it is dead, or None if the lifeline spoke or the time ran out.

    Raises:
        _OverMemory: It holds too much.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    watched = [woken] if lifeline is None else [woken, lifeline]
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        pause = left if not memory_limit else min(MEMORY_SECONDS, MEMORY_SECONDS if left is None else left)
        readable, _, _ = select.select(watched, [], [], pause)
        if lifeline in readable or (left is not None and left <= 0):
            return None
        if memory_limit and (held := memory_below(os.getpid())) > memory_limit:
            raise _OverMemory(held)
        if not readable:
            continue
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 512)
        status = _reap(worker)
        if status is not None:
            return status


def _reap(worker: int) -> int | None:
    """Collects every child that ended; returns the worker's wait status once it is among them."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == worker:
                return status
            if pid == 0:
                break
    return None


def memory_below(pid: int) -> int:
    """Returns the bytes that the descendants of a process hold; what two of them share counts for each.

    Linux; elsewhere nothing is found and 0 is returned.
    """
    held, waiting = 0, _children(pid)
    while waiting:
        child = waiting.pop()
        waiting += _children(child)
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{child}/status").read_text().splitlines():
                name, _, amount = line.partition(":")
                if name in ("RssAnon", "RssShmem", "VmSwap"):
                    held += int(amount.split()[0]) * 1024
    return held


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _kill_orphans() -> None:
    """Kills what the worker had put into process groups of its own; it was inherited by this process (Linux)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError):
        while pids := children.read_text().split():
            for pid in map(int, pids):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _prctl(option: int, value: int) -> None:
    """Asks the kernel (Linux); elsewhere nothing happens and the lifeline alone has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
