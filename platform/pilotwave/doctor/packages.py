"""Which of our dependencies are installed, in which version, by the extra that brings them.

Reads the metadata of installed distributions and imports nothing. May import :mod:`pilotwave.doctor.check`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from pilotwave.doctor.check import Check

CORE = "core"
NEEDED = (CORE, "ray", "tracking", "molecules", "images", "report")
"""What the demo needs."""
OPTIONAL = {"train": "only needed to train models", "docking": "only needed by docking oracles"}

_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)\s*(\[[^]]*\])?\s*(>=\s*(?P<least>[0-9][0-9.]*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_BELOW_PYTHON = re.compile(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]")


@dataclass(frozen=True)
class Requirement:
    """One line of our metadata.

    Attributes:
        name: Of the distribution.
        least: The least version, ``""`` if any will do.
        extra: What brings it, or ``"core"``.
    """

    name: str
    least: str
    extra: str


def requirements(distribution: str = "pilotwave") -> list[Requirement]:
    """Returns what a distribution needs with this Python, in the order of its metadata."""
    return [item for line in requires(distribution) or () for item in _parse(line)]


def package_checks(distribution: str = "pilotwave") -> list[Check]:
    """Returns a check per extra."""
    found = requirements(distribution)
    return [
        _check(extra, [item for item in found if item.extra == extra])
        for extra in (*NEEDED, *OPTIONAL)
        if any(item.extra == extra for item in found)
    ]


def _parse(line: str) -> Iterator[Requirement]:
    matched = _REQUIREMENT.match(line)
    below = _BELOW_PYTHON.search(line)
    if matched is None or (below and sys.version_info[:2] >= (int(below[1]), int(below[2]))):
        return
    extra = _EXTRA.search(line)
    yield Requirement(matched["name"], matched["least"] or "", extra[1] if extra else CORE)


def _check(extra: str, needed: list[Requirement]) -> Check:
    installed, missing = [], []
    for item in needed:
        try:
            has = version(item.name)
        except PackageNotFoundError:
            missing.append(f"no {item.name}")
            continue
        installed.append(f"{item.name} {has}")
        if _release(has) < _release(item.least):
            missing.append(f"{item.name} must be {item.least} or newer")
    name = "packages" if extra == CORE else f"packages: {extra}"
    if not missing:
        return Check(name, "ok", ", ".join(installed))
    target = "pilotwave" if extra == CORE else f"'pilotwave[{extra}]'"
    note = f" ({OPTIONAL[extra]})" if extra in OPTIONAL else ""
    return Check(
        name,
        "warning" if extra in OPTIONAL else "missing",
        f"{'; '.join(missing)}{note}" + (f"; {', '.join(installed)}" if installed else ""),
        f"pip install --upgrade {target}",
    )


def _release(text: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version: ``"2.13.0+cpu"`` becomes (2, 13), zeros at the end dropped."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    release = [int(part) for part in numbers[0].split(".")] if numbers else []
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


__all__ = ["CORE", "NEEDED", "OPTIONAL", "Requirement", "package_checks", "requirements"]
