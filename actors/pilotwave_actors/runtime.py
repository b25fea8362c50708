"""The Ray runtime as the driver sees it: connect or start a private cluster, launch the optimizer, follow it.

Ray is imported when a campaign runs, never when its configuration is read. May import ray and the core.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from pilotwave.config.components import RuntimeConfig, path_in_campaign

if TYPE_CHECKING:
    from pilotwave.execution.job import CampaignJob, Interrupt, Observer, Outcome
    from pilotwave_actors.packaging import Plugins
    from pilotwave_actors.roll_call import RollCall


class RayRuntimeConfig(RuntimeConfig):
    """Runs a campaign on Ray actors.

    Attributes:
        address: Which cluster.
        evaluator_resources: What each evaluator actor occupies, e.g. ``{"CPU": 1, "orca_licence": 1}``.
        evaluator_concurrency: How many questions each asks at once.
        share: The name under which campaigns share evaluators.
        generator_gpus: What each generator occupies of GPUs.
        generator_resources: Custom resources that each generator occupies, e.g. ``{"a100": 1}``.
        plugins: Python code of yours that travels to the workers.
        storage: A folder that all nodes of the cluster share, for campaigns that are started from outside it.
        autoscaling: Whether missing resources are waited for.
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
        {"CPU": 1.0}, description="What each evaluator actor occupies: CPU, GPU, or a custom resource."
    )
    evaluator_concurrency: int = Field(
        1,
        ge=1,
        le=1000,
        description="How many questions one evaluator actor asks at once, for oracles that wait rather than work "
        "(a service, a person, an instrument). evaluators stays the number of questions in flight.",
    )
    share: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Campaigns of one cluster with this name and an equal oracle use the same evaluators, fairly "
        "and within one rate limit.",
    )
    generator_gpus: float | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs of each generator: a share below 1, or a whole number; 0 for the CPU. Default: one each "
        "if the cluster has as many, otherwise a fair share of those that it has.",
    )
    generator_resources: dict[str, float] = Field(
        {}, description="Custom resources of each generator, besides generator_threads CPUs and generator_gpus."
    )
    plugins: tuple[Path, ...] = Field(
        (),
        description="Python files, packages, or folders of them that travel to the workers and import there.",
    )
    storage: Path | None = Field(
        None,
        description="A folder that all nodes of the cluster share: there the runs live that are started from a "
        "machine outside it (ray://, submit). Default: PILOTWAVE_STORAGE on the nodes.",
    )
    autoscaling: bool | None = Field(
        None,
        description="Whether nodes come by themselves, so that missing resources are waited for; default: asked of "
        "the cluster.",
    )

    @field_validator("address")
    @classmethod
    def _known_address(cls, address: str) -> str:
        plain = address.removeprefix("ray://")
        host, separator, port = plain.rpartition(":")
        if address not in ("local", "auto") and not (separator and host and port.isdigit()):
            raise ValueError(f"expected local, auto, host:6379 or ray://host:10001, got {address!r}")
        return address

    @field_validator("plugins")
    @classmethod
    def _resolve(cls, plugins: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        return tuple(path_in_campaign(path, info) for path in plugins)

    @field_validator("storage")
    @classmethod
    def _absolute(cls, storage: Path | None) -> Path | None:
        if storage is not None and not storage.is_absolute():
            raise ValueError(f"expected an absolute path, as the cluster's nodes see it, got {storage}")
        return storage

    @field_validator("generator_gpus")
    @classmethod
    def _share_or_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"expected a share of at most 1, or a whole number of GPUs, got {gpus:g}")
        return gpus

    @field_validator("generator_resources")
    @classmethod
    def _custom(cls, resources: dict[str, float]) -> dict[str, float]:
        settings = {"CPU": "generator_threads", "GPU": "generator_gpus"}
        for name in settings.keys() & resources.keys():
            raise ValueError(f"expected custom resources; {name} is set by runtime.{settings[name]}")
        return resources

    @field_validator("evaluator_resources", "generator_resources")
    @classmethod
    def _not_negative(cls, resources: dict[str, float]) -> dict[str, float]:
        wrong = [name for name, amount in resources.items() if amount < 0]
        if wrong:
            raise ValueError(f"expected amounts of at least 0, got {wrong[0]}: {resources[wrong[0]]}")
        return resources

    @property
    def evaluator_actors(self) -> int:
        """How many evaluator actors there are at most."""
        return math.ceil(self.evaluators / self.evaluator_concurrency)

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
            InputError: The cluster refuses the token, a plug-in does not import there, no node has what an actor
                needs, or the run directory is not seen there.
            InfrastructureError: The cluster cannot be reached, differs in its versions, or the optimizer died
                again and again.
            PilotwaveError: As the loop raised it.
        """
        from pilotwave.execution.job import Progress
        from pilotwave_actors.cluster import LIVES, ClusterLostError, is_connected

        private = self._config.address == "local" and not is_connected()
        lives, ended = LIVES, -1

        def watch(progress: Progress) -> None:
            nonlocal lives, ended
            if progress.ended > ended:
                lives, ended = LIVES, progress.ended
            observe(progress)

        while True:
            try:
                return self._execute(job, watch, interrupt)
            except ClusterLostError:
                lives -= 1
                if not private or not lives:
                    raise
                note = "the private Ray cluster died; another one is started, and the campaign goes on"
                observe(Progress("starting", job.config.budget.queries, note=note))

    def _execute(self, job: CampaignJob, observe: Observer, interrupt: Interrupt) -> Outcome:
        from pilotwave.archive.origin import read_origin, refuse_copy
        from pilotwave.execution.job import Progress
        from pilotwave_actors.cluster import connected, through_client
        from pilotwave_actors.packaging import Plugins

        observe(Progress("starting", job.config.budget.queries))
        origin = read_origin(job.run_dir)
        may_be_outside = self._config.address == "auto" or self._config.address.startswith("ray://")
        if origin is not None and (origin.way == "job" or not may_be_outside):
            refuse_copy(job.run_dir)
        plugins = Plugins.of(self._config.plugins)
        if self._config.address.startswith("ray://"):
            plugins = plugins.with_function_of(job.config)
        with connected(self._config.address, self._logical_cpus(), plugins) as address:
            sent = dataclasses.replace(job, config=plugins.rewritten(job.config))
            if through_client():
                from pilotwave_actors.remote_driver import drive_from_outside

                return drive_from_outside(self, sent, address, plugins, observe, interrupt)
            refuse_copy(job.run_dir)
            if address != "local" or plugins.modules:
                self.check_cluster(job, address, plugins)
            self.check_capacity(observe, job)
            return self._drive(sent, observe, interrupt)

    def check_cluster(self, job: CampaignJob, address: str, plugins: Plugins, *, on_head: bool = False) -> RollCall:
        """Asks the cluster whether it would do; see :func:`pilotwave_actors.roll_call.call_the_roll`."""
        from pilotwave_actors.roll_call import call_the_roll

        return call_the_roll(address, job.run_dir, plugins.names, on_head=on_head)

    def check_capacity(self, observe: Observer, job: CampaignJob) -> None:
        """Makes sure that some node has what each actor needs.

        Raises:
            InputError: None has, and none will come.
        """
        import ray

        from pilotwave.execution.job import Progress
        from pilotwave_actors.capacity import check_capacity
        from pilotwave_actors.cluster import has_autoscaler, nodes_in_words

        grows = self._config.autoscaling
        nodes = nodes_in_words(ray.nodes())  # type: ignore[no-untyped-call]
        note = check_capacity(self.demands(), nodes, grows=has_autoscaler() if grows is None else grows)
        if note:
            observe(Progress("starting", job.config.budget.queries, note=note))

    def optimizer_arguments(self) -> tuple[Any, ...]:
        """Returns what an optimizer is told besides its job."""
        return self._generator_gpus(), self._config.evaluator_resources

    @property
    def config(self) -> RayRuntimeConfig:
        """What was chosen."""
        return self._config

    def _drive(self, job: CampaignJob, observe: Observer, interrupt: Interrupt) -> Outcome:
        import ray

        from pilotwave_actors.following import follow, launch

        optimizer = launch(job, self.optimizer_arguments(), self._placement(), outlives_driver=False)
        try:
            return follow(optimizer, observe, interrupt)
        finally:
            ray.kill(optimizer)

    def demands(self) -> list[Any]:
        """Returns what the actors of a campaign occupy; asks the connected cluster for its GPUs."""
        from pilotwave_actors.capacity import Demand

        config = self._config
        evaluator = {"CPU": 1.0, **config.evaluator_resources}
        generator = {
            **config.generator_resources,
            "CPU": float(config.generator_threads),
            "GPU": self._generator_gpus(),
        }
        keys = ("generator_threads", "generator_gpus", "generator_resources")
        return [
            Demand(
                "an evaluator",
                "runtime.evaluator_resources",
                math.ceil(config.fewest_evaluators / config.evaluator_concurrency),
                evaluator,
                "runtime.evaluators" if config.evaluators_min is None else "runtime.evaluators_min",
                config.evaluator_actors,
            ),
            Demand(
                "a generator",
                ", ".join(f"runtime.{key}" for key in keys),
                config.generators_in_use,
                generator,
                "runtime.generators",
            ),
        ]

    def _generator_gpus(self) -> float:
        """What each copy of the model occupies of GPUs."""
        import ray

        from pilotwave_actors.capacity import share_of_gpus

        config = self._config
        if config.generator_gpus is not None or config.device == "cpu":
            return config.generator_gpus or 0.0
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        evaluators = config.evaluator_actors * config.evaluator_resources.get("GPU", 0.0)
        return share_of_gpus(config.generators_in_use, resources.get("GPU", 0.0), evaluators)

    def _placement(self) -> dict[str, Any]:
        """Keeps the optimizer on the driver's node, where the run directory surely is, while that lives."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=True)}

    def _logical_cpus(self) -> int:
        """Enough for every actor at once; on a small machine they share the cores in turn."""
        per_evaluator = self._config.evaluator_resources.get("CPU", 1.0)
        generators = self._config.generators_in_use * self._config.generator_threads
        needed = generators + self._config.evaluator_actors * per_evaluator
        return max(os.cpu_count() or 1, int(needed) + 1)


__all__ = ["RayRuntime", "RayRuntimeConfig"]
