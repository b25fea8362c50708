"""Kills a forked child of this process at a chosen moment: before its n-th touch of a folder, or after some time.

For fault injection that needs hundreds of kills: a fork has everything imported already. The moments are those at
which Python says that it opens, renames or removes something there (audit events). May import the standard library.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

_TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "sqlite3.connect"}


def touches(work: Callable[[], object], folder: Path) -> int:
    """Runs the work in a child without killing it; returns how often it touched the folder.

    Raises:
        AssertionError: The work failed; its traceback is on standard error.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(work, folder, lambda count: os.write(writer, b"."))
    os.close(writer)
    count = 0
    with os.fdopen(reader, "rb") as stream:
        while piece := stream.read(4096):
            count += len(piece)
    assert _ended_well(child), "the work failed; see its traceback"
    return count


def killed_before_touch(number: int, work: Callable[[], object], folder: Path) -> bool:
    """Runs the work in a child and kills it before its ``number``-th touch of the folder, counted from 1.

    Returns:
        Whether it was killed; False if the work ended before that.
    """
    child = os.fork()
    if child == 0:
        _in_child(work, folder, lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == number else None)
    return _was_killed(child)


def killed_after(seconds: float, work: Callable[[], object]) -> bool:
    """Runs the work in a child and kills it after some time; says whether it was at work still."""
    child = os.fork()
    if child == 0:
        _in_child(work, None, lambda count: None)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # it is not waited for yet, so the id is still its own
    return _was_killed(child)


def spread_moments(count: int, of: int, seed: int) -> list[int]:
    """Returns so many moments from 1 to ``of``: all of them, then random ones again."""
    everyone = list(range(1, of + 1))
    if count <= of:
        return sorted(random.Random(seed).sample(everyone, count))
    return everyone + random.Random(seed).choices(everyone, k=count - of)


def _in_child(work: Callable[[], object], folder: Path | None, touch: Callable[[int], object]) -> None:
    code = 1
    try:
        if folder is not None:
            _listen(str(folder), touch)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the parent's is to be cleaned up here


def _listen(folder: str, touch: Callable[[int], object]) -> None:
    count = 0

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in _TOUCHES and arguments and folder in os.fsdecode(_named(arguments[0])):
            count += 1
            touch(count)

    sys.addaudithook(hear)


def _named(what: object) -> str | bytes:
    if isinstance(what, str | bytes):
        return what
    return os.fspath(what) if isinstance(what, os.PathLike) else ""


def _was_killed(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0, "the work failed by itself; see its traceback"
    return False


def _ended_well(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


__all__ = ["killed_after", "killed_before_touch", "spread_moments", "touches"]
