"""Kills the owner of a project archive at its durable steps, and at random moments, and looks at what is left.

A child of this process appends, compacts or removes and kills itself (``SIGKILL``) at the n-th call of the
operating system that changes a file; a write may be cut short by it. What opens afterwards must be the archive
from before or from after, whole to the last bit. Run as a program it prints what it saw as JSON::

    python -m pilotwave.testing.killed_archive FOLDER append 20 7

May import numpy and the core.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave.archive.project.archive import ProjectArchive
from pilotwave.archive.project.promises import promised
from pilotwave.testing.answer_records import answer_record

STEPS = ("write", "fsync", "replace", "unlink", "ftruncate", "mkdir", "rmdir")
"""Calls that change files, or wait for them."""
KEPT, GONE, NEW = range(0, 40), range(40, 48), range(48, 56)
"""Records that stay, that are removed, and that are appended."""


@dataclass
class Seen:
    """What was seen over many kills.

    Attributes:
        kills: Children that died as they were told to.
        old: How often the archive was as before.
        new: How often it was as after.
        done: Actions that were acknowledged before the kill, where they follow one another.
        wrong: What should not have been, one line each.
    """

    kills: int = 0
    old: int = 0
    new: int = 0
    done: int = 0
    wrong: list[str] = field(default_factory=list)


def kill_at_steps(folder: Path, action: str, kills: int, seed: int) -> Seen:
    """Kills children at random steps of an action.

    Args:
        folder: For the archives.
        action: ``"append"``, ``"compact"`` or ``"remove"``.
        kills: How many.
        seed: Of the choice of steps.
    """
    base, here, seen, choice = folder / "base", folder / "archive", Seen(), random.Random(seed)
    _make(base)
    states = [_state_of(base), _state_after(base, here, action)]
    steps = _run(base, here, action, None, 0)
    for kill in range(kills):
        step = choice.randrange(steps)
        if (ended := _run(base, here, action, step, choice.getrandbits(32))) != -signal.SIGKILL:
            raise RuntimeError(f"expected a child that dies at step {step} of {steps}, got {ended}")
        seen.kills += 1
        _look(here, action, states, seen, f"{action}, kill {kill} at step {step} of {steps}")
    return seen


def kill_at_moments(folder: Path, kills: int, seed: int) -> Seen:
    """Kills children that append, compact and remove by turns, after a random time."""
    here, seen, choice = folder / "archive", Seen(), random.Random(seed)
    ProjectArchive.create(here).close()
    there: set[int] = set()
    for kill in range(kills):
        seconds, draws = choice.uniform(0.0, 0.08), choice.getrandbits(32)
        begun, done, acknowledged = _work_until_killed(here, sorted(there), seconds, draws)
        seen.kills += 1
        seen.done += acknowledged
        with ProjectArchive.open(here) as archive:
            names = set(archive.table(columns=["record_id"]).column(0).to_pylist())
            damage = archive.verify()
        for number, present in done.items():
            if (answer_record(number).record_id in names) != present and begun.get(number, present) == present:
                seen.wrong.append(f"kill {kill}: record {number} should be {'there' if present else 'gone'}")
        if damage:
            seen.wrong.append(f"kill {kill}: {damage[0]}")
        numbers = {answer_record(number).record_id: number for number in {*there, *begun, *done}}
        if strange := names - set(numbers):
            seen.wrong.append(f"kill {kill}: nobody added {sorted(strange)[0]}")
        there = {numbers[name] for name in names & set(numbers)}
    return seen


def _make(path: Path) -> None:
    """A compacted part, a segment of several frames, and a saved index."""
    with ProjectArchive.create(path) as archive:
        together = [answer_record(number) for number in (*KEPT, *GONE)]
        archive.append(together[::2])
        archive.compact()
        for start in range(1, len(together), 8):
            archive.append(together[start : start + 8 : 2])
        archive.neighbours("backbone-a", np.zeros((1, 2, 8), np.float32), 3)


def _act(archive: ProjectArchive, action: str) -> None:
    if action == "append":
        archive.append([answer_record(number) for number in NEW])
    elif action == "compact":
        archive.compact()
    elif action == "remove":
        archive.remove([answer_record(number).record_id for number in GONE], reason="test")
    else:
        raise ValueError(f"expected append, compact or remove, got {action!r}")


def _state_of(path: Path) -> str:
    with ProjectArchive.open(path, read_only=True) as archive:
        return archive.digest()


def _state_after(base: Path, here: Path, action: str) -> str:
    _copy(base, here)
    with ProjectArchive.open(here) as archive:
        _act(archive, action)
    return _state_of(here)


def _copy(base: Path, here: Path) -> None:
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(base, here)


def _run(base: Path, here: Path, action: str, step: int | None, seed: int) -> int:
    """Acts in a child; returns how many steps it took, or minus the signal that ended it."""
    _copy(base, here)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            counted = _count_steps(step, random.Random(seed))
            with ProjectArchive.open(here) as archive:
                _act(archive, action)
            os.close(reading)
            counted(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    if not said:
        raise RuntimeError(f"the child that should {action} failed; its traceback is above")
    return int(said)


def _count_steps(fatal: int | None, choice: random.Random) -> Callable[[int], None]:
    """Makes the fatal step kill this process: before it, after it, or in the middle of a write.

    Returns:
        Writes the number of steps so far to a descriptor.
    """
    taken = 0
    originals: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in STEPS}

    def stepping(name: str) -> Callable[..., Any]:
        original = originals[name]

        def step(*given: Any, **named: Any) -> Any:
            nonlocal taken
            now, taken = taken, taken + 1
            if now != fatal:
                return original(*given, **named)
            try:
                if name == "write":
                    data = bytes(given[1])
                    original(given[0], data[: choice.randrange(len(data) + 1)])
                elif choice.random() < 0.5:
                    original(*given, **named)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)

        return step

    for name in STEPS:
        setattr(os, name, stepping(name))
    return lambda descriptor: originals["write"](descriptor, str(taken).encode()) and None


def _look(here: Path, action: str, states: list[str], seen: Seen, where: str) -> None:
    """Opens what a kill has left: to read, and then as the next owner."""
    with ProjectArchive.open(here, read_only=True) as archive:
        before = archive.digest()
    if before not in states:
        seen.wrong.append(f"{where}: a reader sees neither the old nor the new records")
    was_promised = bool(promised(here))
    with ProjectArchive.open(here) as archive:
        after = archive.digest()
        found = [str(item) for item in archive.verify()]
        if after not in states:
            seen.wrong.append(f"{where}: the next owner sees neither the old nor the new records")
        if was_promised and after != states[1]:
            seen.wrong.append(f"{where}: the removal was promised and is not done")
        if before == states[1] and after != states[1]:
            seen.wrong.append(f"{where}: what a reader saw is lost")
        seen.wrong += [f"{where}: {item}" for item in found]
        archive.neighbours("backbone-a", np.zeros((1, 2, 8), np.float32), 3)
        _act(archive, action)
        if archive.digest() != states[1]:
            seen.wrong.append(f"{where}: the action cannot be done again")
    left = [path for path in here.rglob("*") if path.name.endswith(".tmp")] + promised(here)
    seen.wrong += [f"{where}: {path.name} was left behind" for path in left]
    seen.old += after == states[0]
    seen.new += after == states[1]


def _work_until_killed(
    here: Path, there: list[int], seconds: float, seed: int
) -> tuple[dict[int, bool], dict[int, bool], int]:
    """Lets a child work and kills it.

    Returns:
        What the child had begun to add (True) or remove (False), what of it was acknowledged or was so before, and
        how many actions were acknowledged.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _work(here, there, writing, random.Random(seed))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        first = pipe.readline()  # it has opened the archive
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        lines = [first, *pipe.readlines()]
    os.waitpid(child, 0)
    begun: dict[int, bool] = {}
    done: dict[int, bool] = dict.fromkeys(there, True)
    for line in lines:
        if not line.endswith("\n"):
            continue
        word, *rest = line.split()
        if word in ("adds", "removes"):
            begun = {int(number): word == "adds" for number in rest}
        elif word == "done":
            done |= begun
            begun = {}
    return begun, done, lines.count("done\n")


def _work(here: Path, there: list[int], pipe: int, choice: random.Random) -> None:
    known = set(there)

    def say(*words: object) -> None:
        os.write(pipe, (" ".join(map(str, words)) + "\n").encode())

    with ProjectArchive.open(here) as archive:
        say("opened")
        while True:
            kind = choice.choice(["append", "append", "append", "remove", "compact"])
            if kind == "append":
                chosen = [number for number in choice.sample(range(400), 6) if number not in known]
                say("adds", *chosen)
                archive.append([answer_record(number) for number in chosen])
                known.update(chosen)
            elif kind == "remove" and known:
                chosen = choice.sample(sorted(known), min(3, len(known)))
                say("removes", *chosen)
                archive.remove([answer_record(number).record_id for number in chosen], reason="test")
                known.difference_update(chosen)
            else:
                archive.compact()
                continue
            say("done")


def main(arguments: list[str]) -> None:
    """``FOLDER append|compact|remove|moments KILLS SEED``: kills and prints what was seen."""
    folder, action, kills, seed = Path(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3])
    if action == "moments":
        seen = kill_at_moments(folder, kills, seed)
    else:
        seen = kill_at_steps(folder, action, kills, seed)
    print(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main(sys.argv[1:])


__all__ = ["Seen", "kill_at_moments", "kill_at_steps", "main"]
