"""The suites of tasks by name; each is put together when it is asked for. May import pilotwave.bench."""

from __future__ import annotations

import functools
import importlib

from pilotwave.bench.task import Suite
from pilotwave.config.registry import suggestion
from pilotwave.errors import InputError

SUITES = ("analytic", "archive", "images", "molecules", "numerical")


@functools.cache
def load_suite(name: str) -> Suite:
    """Returns a suite; no model is built yet.

    Raises:
        InputError: There is no such suite.
    """
    if name not in SUITES:
        known = dict.fromkeys(SUITES)
        raise InputError(f"--suite: expected one of {', '.join(SUITES)}, got {name!r}{suggestion(name, known)}")
    suite = importlib.import_module(f"pilotwave.bench.suites.{name}").SUITE
    assert isinstance(suite, Suite)
    return suite


__all__ = ["SUITES", "load_suite"]
