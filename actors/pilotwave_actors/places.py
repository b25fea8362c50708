"""Where an actor is: ids for the run's log, asked of Ray's own table. May import ray and the core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pilotwave.execution.log_capture import WorkerLogs

AGAIN_SECONDS = 60.0
"""So often it is looked whether a name still stands for the same actor: pools grow and shrink."""

NO_LOGS = Path(os.devnull)
"""Where lines of nobody's run go, in an actor that works for several."""


class Places:
    """From a worker's name to its actor and node; asked for every line of the log, so what is known is kept.

    Args:
        actors: Gives the handle of each worker by its name; workers may come and go.
        clock: Seconds.
    """

    def __init__(
        self, actors: Callable[[], Mapping[str, Any]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._actors = actors
        self._clock = clock
        self._known: dict[str, tuple[float, Mapping[str, str]]] = {}

    def __call__(self, worker: str, died: bool = False) -> Mapping[str, str]:
        """Returns ``{"actor", "node"}``, or what is known of it; nothing for a worker that is gone.

        Args:
            worker: Its name.
            died: Whether it has just died there, so that it may be made again on another node.
        """
        looked, known = self._known.get(worker, (float("-inf"), {}))
        if died and known:
            del self._known[worker]
            return known
        now = self._clock()
        if "node" in known and now - looked < AGAIN_SECONDS:
            return known
        handle = self._actors().get(worker)
        if handle is None:
            return known
        actor = str(handle._actor_id.hex())
        if actor != known.get("actor") or "node" not in known:
            node = _node_of(actor)  # none while it is being made, again perhaps: asked anew next time
            known = {"actor": actor, "node": node} if node else {"actor": actor}
        self._known[worker] = now, known
        return known


def itself() -> dict[str, str]:
    """Returns the ids of the actor in which this is called, and of its node."""
    import ray

    context = ray.get_runtime_context()
    ids = {"actor": context.get_actor_id(), "node": context.get_node_id()}
    return {name: str(value) for name, value in ids.items() if value}


def keep_log(worker: str, logs: Path) -> None:
    """Brings what this actor's process logs into the run's log, where the run directory is seen."""
    WorkerLogs(worker, logs, itself()).install()


def _node_of(actor: str) -> str:
    from ray._private.state import actors

    try:
        found = actors(actor_id=actor)
        return str(found["Address"]["NodeID"]) if found.get("State") == "ALIVE" else ""
    except Exception:  # Ray's table is not for the public: without it lines have the actor's id alone
        return ""


__all__ = ["NO_LOGS", "Places", "itself", "keep_log"]
