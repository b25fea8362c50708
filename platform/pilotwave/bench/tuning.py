"""Held-out tuning: the same number of settings tried for every method, on tasks that are not compared.

The score of a setting on a task is its level averaged over the batches after the first, a measure of both how soon
and how far; per task it is divided by the best of the method's settings there, so that no task outweighs the
others, and averaged over the group's tasks. The best of each group (a model of a suite) is kept in a JSON file,
with all scores. May import PyYAML and the modules beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pilotwave.bench.loop import Record
from pilotwave.bench.methods import Method
from pilotwave.bench.summary import curves_of
from pilotwave.bench.task import Suite, Task
from pilotwave.errors import InputError
from pilotwave.storage import write_atomically

GRIDS = Path(__file__).parent / "suites" / "grids.yaml"
CHOSEN = Path(__file__).parent / "tuned"
"""The folder of what was chosen, a file per suite; it comes with the package."""
SEED = 10_000
"""The first seed of tuning; none of them is compared."""
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Grids:
    """What is tried.

    Attributes:
        points: Settings per method.
        settings: By kind, or kind and suite; the first are the defaults.
        untuned: Kinds that are compared with their defaults, with the reason.
    """

    points: int
    settings: Mapping[str, Sequence[Settings]]
    untuned: Mapping[str, str]


def read_grids(path: Path = GRIDS) -> Grids:
    """Reads the grids.

    Raises:
        InputError: A method has another number of settings than the others.
    """
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    grids = Grids(int(found["points"]), found["grids"], found["untuned"])
    for kind, settings in grids.settings.items():
        if len(settings) != grids.points:
            raise InputError(f"{path}: expected {grids.points} settings of {kind}, got {len(settings)}")
    return grids


def candidates(kind: str, suite: str, grids: Grids) -> list[Method]:
    """Returns a method for every setting to try on a suite; none for a kind that is not tuned.

    Raises:
        InputError: The kind is neither in the grids nor exempt.
    """
    if kind in grids.untuned:
        return []
    settings = grids.settings.get(f"{kind} {suite}", grids.settings.get(kind))
    if settings is None:
        raise InputError(f"{GRIDS.name} has no settings of {kind} to try; add {grids.points} of them")
    return [Method(kind, each, f"{kind}-{place}") for place, each in enumerate(settings)]


def score(record_groups: Sequence[Sequence[Record]]) -> list[float]:
    """Returns the mean level of each setting on one task over the batches after the first.

    Args:
        record_groups: For each setting the records of its seeds.
    """
    return [float(curves_of(records).levels[:, 1:].mean()) for records in record_groups]


def choose(suite: Suite, tasks: Sequence[Task], methods: Sequence[Method], records: Sequence[Record]) -> Record:
    """Returns what was tried and what was best, JSON-compatible.

    Args:
        suite: That was tuned on.
        tasks: Held out.
        methods: All settings of all kinds, see :func:`candidates`.
        records: Of finished runs; a setting with a run missing is not chosen.
    """
    groups: dict[str, Any] = {}
    for group in dict.fromkeys(task.group for task in tasks):
        names = [task.name for task in tasks if task.group == group]
        kinds = dict.fromkeys(method.kind for method in methods)
        groups[group] = {
            kind: _choose([method for method in methods if method.kind == kind], names, records) for kind in kinds
        }
    return {"suite": suite.name, "groups": groups}


def merge(before: Record | None, chosen: Record) -> Record:
    """Returns what was chosen now, and for other methods and models what was chosen before."""
    if before is None or before.get("suite") != chosen["suite"]:
        return chosen
    groups = {**before["groups"]}
    for group, kinds in chosen["groups"].items():
        groups[group] = dict(sorted({**groups.get(group, {}), **kinds}.items()))
    return {**chosen, "groups": groups}


def write_chosen(chosen: Record, path: Path) -> None:
    """Keeps what was chosen.

    Raises:
        StorageError: The file could not be written.
    """
    write_atomically(path, (json.dumps(chosen, indent=1) + "\n").encode())


def read_chosen(path: Path) -> Record | None:
    """Reads what was chosen; None if there is no such file.

    Raises:
        InputError: It is not what ``--tune`` writes.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        groups = found["groups"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected a file of `pilotwave bench --tune`: {error}") from error
    assert isinstance(groups, dict)
    return dict(found)


def tuned(method: Method, task: Task, chosen: Record | None) -> Method:
    """Returns the method with the settings that were chosen for a task's model; as it is if it has its own."""
    if method.settings or chosen is None:
        return method
    found = chosen["groups"].get(task.group, {}).get(method.kind)
    return method if found is None else Method(method.kind, found["chosen"], method.name)


def _choose(methods: Sequence[Method], tasks: Sequence[str], records: Sequence[Record]) -> Record:
    by_place: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_place.setdefault((record["task"], record["method"]), []).append(record)
    shares = np.full((len(tasks), len(methods)), np.nan)
    levels = np.full_like(shares, np.nan)
    for row, task in enumerate(tasks):
        for column, method in enumerate(methods):
            found = by_place.get((task, method.name))
            if found:
                levels[row, column] = score([found])[0]
        best = np.nanmin(levels[row]) if np.isfinite(levels[row]).any() else np.nan
        # A task on which no setting gets below the unguided level says nothing for any of them.
        shares[row] = levels[row] / best if best < 0 else np.where(np.isfinite(levels[row]), 0.0, np.nan)
    means = shares.mean(axis=0)
    place = int(np.nanargmax(means)) if np.isfinite(means).any() else 0
    used = [record for method in methods for task in tasks for record in by_place.get((task, method.name), [])]
    return {
        "chosen": dict(methods[place].settings),
        "queries": max((record["queries"] for record in used), default=0),
        "seeds": sorted({record["seed"] for record in used}),
        "tried": [
            {
                "settings": dict(method.settings),
                "score": _number(means[column]),
                "levels": {task: _number(levels[row, column]) for row, task in enumerate(tasks)},
            }
            for column, method in enumerate(methods)
        ],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


__all__ = [
    "CHOSEN",
    "GRIDS",
    "SEED",
    "Grids",
    "candidates",
    "choose",
    "merge",
    "read_chosen",
    "read_grids",
    "tuned",
    "write_chosen",
]
