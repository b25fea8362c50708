"""The Ray runtime as the driver sees it: connect or start a private cluster, launch the optimizer, follow it.

Ray is imported when a campaign runs, never when its configuration is read. May import ray and the core.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from pilotwave.config.components import RuntimeConfig
from pilotwave.errors import InfrastructureError, PilotwaveError

if TYPE_CHECKING:
    from pilotwave.execution.job import CampaignJob, Interrupt, Observer, Outcome, Progress

OPTIMIZER_LIVES = 4
"""How many optimizer actors are made in all if they keep dying without a word."""


class RayRuntimeConfig(RuntimeConfig):
    """Runs a campaign on Ray actors.

    Attributes:
        address: Which cluster.
        evaluator_resources: What each evaluator occupies, e.g. ``{"CPU": 1, "orca_licence": 1}``.
    """

    packages: ClassVar[tuple[str, ...]] = ("ray",)
    extra: ClassVar[str | None] = "ray"
    summary: ClassVar[str] = "Ray actors: an optimizer, a generator, a pool of evaluators; laptop or cluster."

    kind: Literal["ray"]
    address: str = Field(
        "local",
        description="local: a private cluster in this process. auto: the cluster this machine belongs to. "
        "host:6379 or ray://host:10001: that one.",
    )
    evaluator_resources: dict[str, float] = Field(
        {"CPU": 1.0}, description="What each evaluator occupies: CPU, GPU, or a custom resource."
    )

    @field_validator("address")
    @classmethod
    def _known_address(cls, address: str) -> str:
        plain = address.removeprefix("ray://")
        host, separator, port = plain.rpartition(":")
        if address not in ("local", "auto") and not (separator and host and port.isdigit()):
            raise ValueError(f"expected local, auto, host:6379 or ray://host:10001, got {address!r}")
        return address

    @field_validator("evaluator_resources")
    @classmethod
    def _not_negative(cls, resources: dict[str, float]) -> dict[str, float]:
        wrong = [name for name, amount in resources.items() if amount < 0]
        if wrong:
            raise ValueError(f"expected amounts of at least 0, got {wrong[0]}: {resources[wrong[0]]}")
        return resources

    def build(self) -> RayRuntime:
        return RayRuntime(self)


class RayRuntime:
    """See :class:`pilotwave.execution.job.Runtime`."""

    name = "ray"

    def __init__(self, config: RayRuntimeConfig) -> None:
        self._config = config

    def execute(self, job: CampaignJob, observe: Observer, interrupt: Interrupt) -> Outcome:
        """Runs the job in an optimizer actor and follows it.

        Raises:
            InfrastructureError: The cluster cannot be reached, or the optimizer died again and again.
            PilotwaveError: As the loop raised it.
        """
        from pilotwave.execution.job import Progress
        from pilotwave_actors.cluster import connected

        observe(Progress("starting", job.config.budget.queries))
        with connected(self._config.address, self._logical_cpus()):
            for _ in range(OPTIMIZER_LIVES):
                ended = self._follow(job, observe, interrupt)
                if isinstance(ended, PilotwaveError):
                    raise ended
                if ended is not None:
                    return ended
        raise InfrastructureError(
            f"the optimizer actor died {OPTIMIZER_LIVES} times; all answers are in the ledger of {job.run_dir}: "
            "mend the cluster, then `pilotwave resume`"
        )

    def _follow(self, job: CampaignJob, observe: Observer, interrupt: Interrupt) -> Outcome | PilotwaveError | None:
        """Launches one optimizer and follows it to its end; returns None if it died without a word."""
        import ray
        from ray.exceptions import RayActorError

        from pilotwave_actors.optimizer import Optimizer

        optimizer: Any = (
            ray.remote(Optimizer)
            .options(num_cpus=0, max_concurrency=4, max_restarts=0, max_task_retries=0, **self._placement())
            .remote(job, self._generator_gpus(), self._config.evaluator_resources)
        )
        running = optimizer.run.remote()
        told = False
        try:
            while True:
                ended, _ = ray.wait([running], timeout=0.25)
                if interrupt.is_set() and not told:
                    told = True
                    optimizer.interrupt.remote()
                progress: Progress | None = ray.get(optimizer.progress.remote())
                if progress is not None:
                    observe(progress)  # also the last one, so that the count that is shown is whole
                if ended:
                    result: Outcome | PilotwaveError = ray.get(running)
                    return result
        except RayActorError:
            return None
        finally:
            ray.kill(optimizer)

    def _generator_gpus(self) -> float:
        """One GPU for the model if it may and can have one."""
        import ray

        if self._config.device == "cpu":
            return 0.0
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return 1.0 if resources.get("GPU", 0.0) >= 1 else 0.0

    def _placement(self) -> dict[str, Any]:
        """Keeps the optimizer on the driver's node, where the run directory surely is; not through Ray Client."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if self._config.address.startswith("ray://"):
            return {}
        node = ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False)}

    def _logical_cpus(self) -> int:
        """Enough for every actor at once; on a small machine they share the cores in turn."""
        per_evaluator = self._config.evaluator_resources.get("CPU", 1.0)
        needed = self._config.generator_threads + self._config.evaluators * per_evaluator
        return max(os.cpu_count() or 1, int(needed) + 1)


__all__ = ["RayRuntime", "RayRuntimeConfig"]
