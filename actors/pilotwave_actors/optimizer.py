"""The optimizer actor: the single owner of a campaign's state; runs the loop on the cluster.

If it dies, another one is made and goes on from the ledger. May import ray and the core.
"""

from __future__ import annotations

import threading

from pilotwave.errors import PilotwaveError, RunDirectoryError
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.job import CampaignJob, Outcome, Progress
from pilotwave_actors.workers import RayWorkers


class Optimizer:
    """Runs one campaign; made an actor with several threads by :mod:`pilotwave_actors.runtime`.

    One thread is in :meth:`run` for as long as the campaign lasts, the others answer the driver.
    """

    def __init__(self, job: CampaignJob, generator_gpus: float, evaluator_resources: dict[str, float]) -> None:
        self._job = job
        self._generator_gpus = generator_gpus
        self._evaluator_resources = evaluator_resources
        self._interrupt = threading.Event()
        self._progress: Progress | None = None

    def run(self) -> Outcome | PilotwaveError:
        """Runs to the end; an error of ours is returned as a value, so that Ray does not dress it up."""
        try:
            if not self._job.run_dir.is_dir():
                raise RunDirectoryError(
                    f"the optimizer's node cannot see {self._job.run_dir}; put the run directory on storage that "
                    "all nodes share (--run-dir)"
                )
            workers = RayWorkers(
                self._job, generator_gpus=self._generator_gpus, evaluator_resources=self._evaluator_resources
            )
            return Coordinator(self._job, workers, self._observe, self._interrupt).run()
        except PilotwaveError as error:
            return error

    def progress(self) -> Progress | None:
        """Returns the last progress, or None before there is any."""
        return self._progress

    def interrupt(self) -> None:
        """Asks the loop to save and stop."""
        self._interrupt.set()

    def _observe(self, progress: Progress) -> None:
        self._progress = progress


__all__ = ["Optimizer"]
