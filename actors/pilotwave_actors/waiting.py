"""What actors answer, and what their errors say. May import ray and the core."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pilotwave.errors import InfrastructureError, PilotwaveError

START_DEATHS = 5
"""How often an actor may die while it is starting before that is taken for its own doing."""


def fetch(reference: Any, what: str, again: Callable[[], Any] | None = None) -> Any:
    """Fetches a result that is waited for while starting; an error of ours comes out as it went in.

    Args:
        reference: Of the call.
        what: Whose call it is, in messages.
        again: Makes the call again: an actor that is killed while it starts is made anew by Ray, and one death is
            no reason to lay a campaign down.

    Raises:
        PilotwaveError: As the actor raised it.
        InfrastructureError: The actor died, again and again, or raised something else.
    """
    for death in itertools.count(1):
        try:
            return ray.get(reference)
        except RayTaskError as error:
            failure = failure_of(error, what)
            raise failure from (None if failure is error.cause else error)
        except RayActorError as error:
            if again is None or death == START_DEATHS:
                raise failure_of(error, what) from error
            time.sleep(float(death))
            reference = again()
    raise AssertionError("counting has no end")


def failure_of(error: Exception, what: str) -> PilotwaveError:
    """Returns what to raise when a call that starts something failed: an error of ours as it went in.

    Args:
        error: As Ray raised it.
        what: Whose call it was, in messages.
    """
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, PilotwaveError):
            return cause
        return InfrastructureError(f"{what} could not be started: {cause_of(error)}")
    return InfrastructureError(f"{what} died while it was starting: {first_line(error)}")


def cause_of(error: RayTaskError) -> str:
    """Returns what an actor raised, one line."""
    return f"{type(error.cause).__name__}: {error.cause}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["cause_of", "failure_of", "fetch", "first_line"]
