"""The runs of a comparison, spread over Ray actors; the entry point ``ray`` of ``pilotwave.spread``.

Every actor does one run at a time on one thread, so a run's result does not depend on how many there are. A run
whose actor dies is done again by a fresh one, a few times at most. May import ray and the core.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pilotwave_actors.cluster import connected

if TYPE_CHECKING:
    from pilotwave.bench.loop import Record
    from pilotwave.bench.run import RunRequest
    from pilotwave.bench.spread import Done, RunFailure, Watch

LIVES = 3
"""How often a run is begun in all if its actor keeps dying."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Numerical libraries read these when they are imported, so they are set before the actor begins."""


class Runner:
    """Does runs; made an actor by :class:`RaySpread`. Models stay loaded from one run to the next."""

    def run(self, request: RunRequest) -> Record | RunFailure:
        """Does a run; whatever it raises comes back as one line."""
        from pilotwave.bench.spread import attempt

        return attempt(request)


class RaySpread:
    """See :class:`pilotwave.bench.spread.Spread`.

    Args:
        workers: Actors side by side.
        address: Of the cluster, see :func:`pilotwave_actors.cluster.connected`.
    """

    def __init__(self, workers: int, address: str) -> None:
        import ray  # noqa: F401  # said at once, before anything is measured

        self._workers, self._address = workers, address

    def run(self, requests: Sequence[RunRequest], watch: Watch) -> Iterator[Done]:
        """Yields each run as it ends; how far one is while it lasts is not told."""
        if not requests:
            return
        with connected(self._address, self._workers):
            yield from self._run(requests)

    def _run(self, requests: Sequence[RunRequest]) -> Iterator[Done]:
        import ray
        from ray.exceptions import RayActorError

        from pilotwave.bench.spread import RunFailure

        waiting = deque((request, 1) for request in requests)
        workers = min(self._workers, len(requests))
        gpus = _share_of_gpus(workers) if any(request.device != "cpu" for request in requests) else 0.0
        idle = [_runner(gpus) for _ in range(workers)]
        running: dict[Any, tuple[Any, RunRequest, int]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    (request, life), actor = waiting.popleft(), idle.pop()
                    running[actor.run.remote(request)] = (actor, request, life)
                (ended, *_), _ = ray.wait(list(running), num_returns=1)
                actor, request, life = running.pop(ended)
                try:
                    result: Record | RunFailure = ray.get(ended)
                except RayActorError as error:
                    idle.append(_runner(gpus))
                    if life < LIVES:
                        waiting.append((request, life + 1))
                        continue
                    result = RunFailure(f"its worker died {LIVES} times: {' '.join(str(error).split())[:200]}")
                else:
                    idle.append(actor)
                yield request, result
        finally:
            for actor in (*idle, *(actor for actor, _, _ in running.values())):
                ray.kill(actor)


def _runner(gpus: float) -> Any:
    import ray

    options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
    return ray.remote(Runner).options(**options, runtime_env={"env_vars": ONE_THREAD}).remote()


def _share_of_gpus(workers: int) -> float:
    """What each worker may have: Ray hides all GPUs from one that asks for none."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return min(1.0, math.floor(1000 * resources.get("GPU", 0.0) / workers) / 1000)


__all__ = ["RaySpread", "Runner"]
