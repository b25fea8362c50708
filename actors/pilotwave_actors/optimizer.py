"""The optimizer actor: the single owner of a campaign's state; runs the loop on the cluster.

It begins by itself, also when Ray makes it again on another node after its own has died, and goes on from the
ledger; a driver looks on and may be lost. May import ray and the core.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InfrastructureError, PilotwaveError, RunDirectoryError
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.job import CampaignJob, Outcome, Progress
from pilotwave.execution.metrics import CampaignMetrics
from pilotwave.execution.structured_log import CampaignLog
from pilotwave.execution.telemetry import Telemetry
from pilotwave_actors.metrics import RayMeter
from pilotwave_actors.places import Places, itself
from pilotwave_actors.workers import RayWorkers

LINGER_SECONDS = 600.0
"""How long a campaign that has ended waits for somebody to ask how; then its actor ends by itself."""


@dataclass(frozen=True)
class Look:
    """What a driver sees.

    Attributes:
        progress: The last, or None before there is any.
        ended: How the campaign ended, an error as a value so that Ray does not dress it up; None while it runs.
    """

    progress: Progress | None
    ended: Outcome | PilotwaveError | None


class Optimizer:
    """Runs one campaign; made an actor with several threads by :mod:`pilotwave_actors.runtime`.

    A thread of its own runs the campaign from the beginning, the actor's threads answer the driver.
    """

    def __init__(self, job: CampaignJob, generator_gpus: float, evaluator_resources: dict[str, float]) -> None:
        import ray

        self._job = job
        self._generator_gpus = generator_gpus
        self._evaluator_resources = evaluator_resources
        self._interrupt = threading.Event()
        self._progress: Progress | None = None
        self._ended: Outcome | PilotwaveError | None = None
        self._last_look = time.monotonic()
        self._itself = ray.get_runtime_context().current_actor
        # A thread rather than a task, so that an actor made again needs nobody to begin. (A task that it gives
        # itself is refused now and then: to its own handle it is still being made.)
        threading.Thread(target=self._run_and_stay, name="campaign", daemon=True).start()

    def look(self) -> Look:
        """Returns how far it is and whether it has ended."""
        self._last_look = time.monotonic()
        ended = self._ended  # first: the progress that is read after it is the last one
        return Look(self._progress, ended)

    def interrupt(self) -> None:
        """Asks the loop to save and stop."""
        self._interrupt.set()

    def _run_and_stay(self) -> None:
        """Runs to the end, then stays while somebody may still ask how it ended."""
        import ray

        self._ended = self._run()
        while time.monotonic() - self._last_look < LINGER_SECONDS:
            time.sleep(1.0)
        ray.kill(self._itself)

    def _run(self) -> Outcome | PilotwaveError:
        try:
            if not RunDirectory(self._job.run_dir).exists():
                raise RunDirectoryError(
                    f"the optimizer's node cannot see {self._job.run_dir}; put the run directory on storage that "
                    "all nodes share (--run-dir)"
                )
            workers = RayWorkers(
                self._job, generator_gpus=self._generator_gpus, evaluator_resources=self._evaluator_resources
            )
            telemetry: list[Telemetry] = [CampaignLog(Places(workers.actors), itself), CampaignMetrics(RayMeter)]
            return Coordinator(self._job, workers, self._observe, self._interrupt, telemetry=telemetry).run()
        except PilotwaveError as error:
            return error
        except Exception as error:
            traceback.print_exc()  # into the actor's log
            return InfrastructureError(f"the optimizer failed: {type(error).__name__}: {error}")

    def _observe(self, progress: Progress) -> None:
        self._progress = progress


__all__ = ["Look", "Optimizer"]
