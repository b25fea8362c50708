"""Where an actor is: ids for the run's log, asked of Ray's own table. May import ray and the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pilotwave.execution.log_capture import WorkerLogs


class Places:
    """From a worker's name to its actor and node; asked once for each actor and node.

    Args:
        actors: Gives the handle of each worker by its name; workers may come and go.
    """

    def __init__(self, actors: Callable[[], Mapping[str, Any]]) -> None:
        self._actors = actors
        self._known: dict[str, Mapping[str, str]] = {}

    def __call__(self, worker: str, died: bool = False) -> Mapping[str, str]:
        """Returns ``{"actor", "node"}``, or what is known of it; nothing for a worker that is gone.

        Args:
            worker: Its name.
            died: Whether it has just died there, so that it may be made again on another node.
        """
        handle = self._actors().get(worker)
        if handle is None:
            return {}
        actor = str(handle._actor_id.hex())
        known = self._known.pop(actor, None)
        if died:
            return known or {"actor": actor}
        if known is None:
            node = _node_of(actor)
            if not node:
                return {"actor": actor}  # it is being made, again perhaps: asked anew next time
            known = {"actor": actor, "node": node}
        self._known[actor] = known
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


__all__ = ["Places", "itself", "keep_log"]
