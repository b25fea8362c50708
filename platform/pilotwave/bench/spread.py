"""Where runs are done: in this process by default, elsewhere through the entry points ``pilotwave.spread``.

The core does not know Ray; whoever does registers a class with the signature of :class:`Spread`. May import the
modules beside it and the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from pilotwave.bench.loop import Record, Step
from pilotwave.bench.run import RunRequest, execute
from pilotwave.errors import MissingDependencyError, PilotwaveError

GROUP = "pilotwave.spread"
REMOTE = "ray"
"""The entry point that more than one worker needs."""

Watch = Callable[[RunRequest, Step], None]


@dataclass(frozen=True)
class RunFailure:
    """A run that raised.

    Attributes:
        message: One line.
    """

    message: str


Done = tuple[RunRequest, Record | RunFailure]


class Spread(Protocol):
    """Does runs, in any order."""

    def run(self, requests: Sequence[RunRequest], watch: Watch) -> Iterator[Done]:
        """Yields each run with its record, or why it has none, as it ends.

        Args:
            requests: What to do.
            watch: Called as runs go on, by those that can say.

        Raises:
            InfrastructureError: The workers cannot be reached or were lost too often.
        """
        ...


class InlineSpread:
    """Does one run after the other in this process."""

    def run(self, requests: Sequence[RunRequest], watch: Watch) -> Iterator[Done]:
        for request in requests:
            yield request, attempt(request, lambda step, request=request: watch(request, step))  # type: ignore[misc]


def attempt(request: RunRequest, observe: Callable[[Step], None] | None = None) -> Record | RunFailure:
    """Does a run; whatever it raises becomes one line, so that the other runs go on."""
    try:
        return execute(request, observe)
    except Exception as error:
        if os.environ.get("PILOTWAVE_TRACEBACK"):
            raise
        text = str(error) if isinstance(error, PilotwaveError) else f"{type(error).__name__}: {error}"
        return RunFailure(" ".join(text.split()))


def open_spread(workers: int, address: str) -> Spread:
    """Returns what does the runs.

    Args:
        workers: Processes side by side; 1 is this one.
        address: Of the cluster, ``"local"`` for a private one in this machine.

    Raises:
        MissingDependencyError: More than one worker is asked for and nothing installed provides them.
    """
    if workers == 1 and address == "local":
        return InlineSpread()
    found = {point.name: point for point in entry_points(group=GROUP)}
    try:
        spread: Spread = found[REMOTE].load()(workers, address)
    except (KeyError, ImportError) as error:
        raise MissingDependencyError(
            "--workers: more than one, or a cluster, needs ray, which is not installed; "
            "run: pip install 'pilotwave[ray]'"
        ) from error
    return spread


__all__ = ["Done", "InlineSpread", "RunFailure", "Spread", "Watch", "attempt", "open_spread"]
