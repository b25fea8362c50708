"""The guard of an oracle's process: a tiny process between driver and oracle that never runs foreign code.

Run as a script (not ``-m``: it must import nothing but the standard library, to stay small and unable to
hang): ``python -P oracle_guard.py <lifeline fd> <worker fd> <sys.path as JSON>``. It forks the worker and
then waits for one of three things. A byte on the lifeline: the driver wants the worker gone, now. The lifeline
closes without one: the driver was itself killed, so the worker gets a grace in which to finish its answer and
leave the receipt. The worker dies: by a crash, the kernel, or because it is done. In each case the guard kills
whatever the worker left running, reports the worker's wait status through the lifeline, and exits.

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
        _watch(worker, lifeline, woken)
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


def _watch(worker: int, lifeline: socket.socket, woken: int) -> None:
    status = _wait_for(worker, woken, lifeline.fileno(), None)
    if status is None and not lifeline.recv(1):
        status = _wait_for(worker, woken, None, ORPHAN_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)
    if status is None:
        os.kill(worker, signal.SIGKILL)  # by itself too: it may not have become the head of a group yet
        _, status = os.waitpid(worker, 0)
    _kill_orphans()
    with contextlib.suppress(OSError):
        lifeline.sendall(struct.pack("<i", status))


def _wait_for(worker: int, woken: int, lifeline: int | None, seconds: float | None) -> int | None:
    """Returns the worker's wait status once it is dead, or None if the lifeline spoke or the time ran out."""
    deadline = None if seconds is None else time.monotonic() + seconds
    watched = [woken] if lifeline is None else [woken, lifeline]
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select(watched, [], [], left)
        if not readable or lifeline in readable:
            return None
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
