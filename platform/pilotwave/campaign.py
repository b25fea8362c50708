"""A campaign from Python: load, run, resume, look at the best.

::

    from pilotwave import Campaign
    result = Campaign.from_yaml("campaign.yaml").run()
    for row in result.best(10):
        print(row.label, row.value)

May import the core; runtimes, oracles, backbones and algorithms come through the configuration.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.origin import read_origin
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config import loading
from pilotwave.config.campaign import CampaignConfig
from pilotwave.config.components import BackboneConfig, OracleConfig
from pilotwave.config.given import GivenBackboneConfig, GivenOracleConfig
from pilotwave.errors import InputError, PilotwaveError
from pilotwave.execution.callable_oracle import CallableOracleConfig
from pilotwave.execution.job import CampaignJob, Interrupt, Observer, Outcome, Progress, never
from pilotwave.execution.oracle_host import open_oracle_host
from pilotwave.protocols import Backbone, Oracle

if TYPE_CHECKING:
    from pilotwave.execution.generated import GeneratedSamples
    from pilotwave.execution.guidance import Guidance
    from pilotwave.report.ranking import Ranked


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign left behind.

    Attributes:
        run_dir: Where the ledger, the checkpoints and the results are.
        outcome: How this driver ended.
        config: The campaign, where it is known.
    """

    run_dir: Path
    outcome: Outcome
    config: CampaignConfig | None = field(default=None, repr=False, compare=False)

    def best(self, count: int = 10) -> list[Ranked]:
        """Returns the best distinct samples, best first."""
        from pilotwave.report.ranking import best
        from pilotwave.report.recorded_run import RecordedRun

        return best(RecordedRun.read(self.run_dir), count)

    def generate(self, count: int = 64, **options: Any) -> GeneratedSamples:
        """Makes more samples from what was learned, without the oracle; see :meth:`Campaign.generate`."""
        return _generate(self.run_dir, self.config, count, **options)


class Campaign:
    """One campaign: a checked configuration that can be run and resumed.

    Args:
        config: Checked.
        run_dir: Where a run of it lies, if one does.
    """

    def __init__(self, config: CampaignConfig, run_dir: Path | None = None) -> None:
        self.config = config
        self.run_dir = run_dir

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Campaign:
        """Reads a campaign file.

        Args:
            path: The file.
            overrides: ``"budget.queries=400"``.

        Raises:
            ConfigError: One line that says what is wrong and where.
        """
        return cls(loading.load_campaign(Path(path), overrides))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Campaign:
        """Takes the fields of a campaign file.

        Raises:
            ConfigError: One line that says what is wrong and where.
        """
        return cls(loading.check_campaign(fields))

    @classmethod
    def of_run(cls, run_dir: str | Path, overrides: Sequence[str] = ()) -> Campaign:
        """Reads the campaign of a run.

        Args:
            run_dir: Its directory.
            overrides: Changes to queries, failures, runtime or tracking.

        Raises:
            RunDirectoryError: There is none, or it was changed.
        """
        return cls(RunDirectory(Path(run_dir)).config(overrides), Path(run_dir))

    def check(self) -> None:
        """Makes sure that all that was chosen can run here.

        Raises:
            MissingDependencyError: A package is not installed.
            InputError: There is something else where the project archive should be.
        """
        for component in self.config.components():
            component.check_dependencies()
        if self.config.archive is not None:
            from pilotwave.execution.archiving import check_archive

            check_archive(self.config.archive)

    def preflight(self) -> None:
        """Loads the model and asks the oracle its known question; nothing is paid for.

        Raises:
            CheckpointError: The model cannot be loaded.
            PreflightError: The oracle did not give its known answer.
        """
        self.check()
        self.config.backbone.build(self.config.runtime.device)
        for constraint in self.config.constraints:
            constraint.build()
        host = open_oracle_host(self.config.oracle, None, "preflight")
        try:
            host.preflight()
        finally:
            host.close()

    def run(
        self,
        run_dir: str | Path | None = None,
        *,
        observe: Observer | None = None,
        interrupt: Interrupt | None = None,
        launched: float | None = None,
    ) -> CampaignResult:
        """Runs the campaign in a new directory.

        Args:
            run_dir: Must be new or empty; ``runs/<name>`` with a number if it is taken, by default.
            observe: Told of progress.
            interrupt: Stops it when set.
            launched: When the user began to wait, seconds since the epoch; now by default.

        Raises:
            PilotwaveError: It could not start, was stopped by the breaker, or the storage failed.
        """
        launched = time.time() if launched is None else launched
        self.check()
        run = RunDirectory(Path(run_dir) if run_dir is not None else free_run_dir(self.config.name))
        with run.lock():
            run.create(self.config)
            try:
                return self._execute(run, launched, observe, interrupt)
            except PilotwaveError:
                _remove_if_unused(run)
                raise

    def resume(
        self,
        run_dir: str | Path,
        *,
        observe: Observer | None = None,
        interrupt: Interrupt | None = None,
        launched: float | None = None,
    ) -> CampaignResult:
        """Goes on where the ledger of a run stands; see :meth:`run`.

        Raises:
            RunDirectoryError: There is no run, it is in use, or it belongs to another campaign.
            PilotwaveError: As :meth:`run`.
        """
        from pilotwave.forgetting.forget_run import finish_promised_forgetting

        launched = time.time() if launched is None else launched
        self.check()
        run = RunDirectory(Path(run_dir))
        if not run.exists():
            raise InputError(f"{run.path}: no run here; give the directory of a run, e.g. runs/demo")
        with run.lock():
            finish_promised_forgetting(run.path)
            run.check_identity(self.config)
            return self._execute(run, launched, observe, interrupt)

    def generate(self, count: int = 64, **options: Any) -> GeneratedSamples:
        """Makes more samples from what a run of this campaign has learned; no oracle is asked, nothing is written.

        Args:
            count: How many.
            options: ``seed=0``, ``constraints=True``, ``conditions={"classes": ["sneaker"]}`` (also such as the
                run never saw), ``device="cpu"``, ``batch_size=16``.

        Raises:
            InputError: The campaign was not made by :meth:`of_run`, or an option is wrong.
            CheckpointError: The model is another one than the run's.
        """
        if self.run_dir is None:
            raise InputError("generate() needs a run: Campaign.of_run(run_dir).generate(...)")
        return _generate(self.run_dir, self.config, count, **options)

    def _execute(
        self, run: RunDirectory, launched: float, observe: Observer | None, interrupt: Interrupt | None
    ) -> CampaignResult:
        if self.config.archive is not None:
            from pilotwave.execution.archiving import ensure_archive

            ensure_archive(self.config.archive)
        job = CampaignJob(self.config, run.path, launched)
        runtime = self.config.runtime.build()
        outcome = runtime.execute(job, observe or _ignore, interrupt or never())
        return CampaignResult(run.path, outcome, self.config)


def optimize(
    backbone: Backbone | str | Mapping[str, Any] | BackboneConfig,
    oracle: Callable[[Any], Any] | Oracle | OracleConfig | str | Mapping[str, Any],
    *,
    queries: int,
    direction: str = "maximize",
    batch_size: int = 16,
    algorithm: str | Mapping[str, Any] = "trust-direct",
    constraints: Sequence[Mapping[str, Any]] = (),
    runtime: str | Mapping[str, Any] = "inline",
    tracking: str | Mapping[str, Any] = "none",
    archive: str | Path | Mapping[str, Any] | None = None,
    name: str = "campaign",
    seed: int = 0,
    run_dir: str | Path | None = None,
    observe: Observer | None = None,
) -> CampaignResult:
    """Steers a model with any callable; a run directory that holds the same campaign is resumed.

    Example::

        from pilotwave import optimize
        result = optimize("image", lambda image: float(image.pixels.mean()), queries=64)
        print(result.best(1)[0].value)

    Args:
        backbone: An object, a kind such as ``"molecule"``, or the fields of that section of a campaign file.
        oracle: ``f(sample) -> float``, an oracle object, a kind, or the fields of that section.
        queries: How often the oracle may be asked.
        direction: ``"maximize"`` or ``"minimize"``.
        batch_size: How many candidates are proposed at once.
        algorithm: A kind or fields; trust-direct unless told otherwise.
        constraints: Fields of each constraint.
        runtime: A kind or fields.
        tracking: A kind or fields.
        archive: A project archive's folder, or the fields of that section; answers of a plain function are reused
            only with ``{"path": ..., "reuse": "exact"}``, because a function has no version.
        name: Names the run directory.
        seed: Of all randomness.
        run_dir: Where to keep it; ``runs/<name>`` by default, with a number if that is taken.
        observe: Told of progress.

    Raises:
        PilotwaveError: As :meth:`Campaign.run`.
    """
    fields: dict[str, Any] = {
        "name": name,
        "backbone": _section(backbone),
        "oracle": _section(oracle),
        "objective": {"direction": direction},
        "constraints": tuple(constraints),
        "algorithm": _section(algorithm),
        "budget": {"queries": queries, "batch_size": min(batch_size, queries)},
        "runtime": _section(runtime),
        "tracking": _section(tracking),
        "archive": {"path": archive} if isinstance(archive, str | Path) else archive,
        "seed": seed,
    }
    if not isinstance(fields["backbone"], Mapping) and not isinstance(fields["backbone"], BackboneConfig):
        fields["backbone"] = GivenBackboneConfig.of(fields["backbone"])
    if not isinstance(fields["oracle"], Mapping | OracleConfig):
        given = fields["oracle"]
        is_oracle = isinstance(given, Oracle)
        fields["oracle"] = GivenOracleConfig.of(given) if is_oracle else CallableOracleConfig(function=given)
    campaign = Campaign.from_dict(fields)
    if run_dir is not None and RunDirectory(Path(run_dir)).exists():
        return campaign.resume(run_dir, observe=observe)
    return campaign.run(run_dir, observe=observe)


def open_guidance(
    place: str | Path,
    *,
    conditions: Mapping[str, Any] | None = None,
    device: str | None = None,
    config: CampaignConfig | None = None,
) -> Guidance:
    """Rebuilds what a run has learned, from its directory or from a model folder; nothing is written.

    Args:
        place: Either of them.
        conditions: Of the model, e.g. ``{"classes": ["sneaker"]}``; the campaign's by default.
        device: Of the model; the campaign's by default.
        config: Of the campaign, where no file can hold it.

    Raises:
        InputError: There is neither, or no such condition, or a forgetting has to be finished first.
        CheckpointError: The model is another one than the campaign's.
        StorageError: The ledger cannot be read.
    """
    from pilotwave.execution.guidance import Guidance
    from pilotwave.execution.guidance_config import GuidanceConfig
    from pilotwave.forgetting.promise import read_promise

    place = Path(place)
    if place.is_dir() and read_promise(place) is not None:
        raise InputError(
            f"{place}: records are to be forgotten and that was interrupted; finish it first with: "
            f"pilotwave resume {place}"
        )
    known = None if config is None else GuidanceConfig.of(config)
    return Guidance.open(place, conditions=conditions, device=device, config=known)


def _generate(
    run_dir: Path,
    config: CampaignConfig | None,
    count: int,
    *,
    seed: int = 0,
    constraints: bool = True,
    conditions: Mapping[str, Any] | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> GeneratedSamples:
    guidance = open_guidance(run_dir, conditions=conditions, device=device, config=config)
    return guidance.generate(count, seed=seed, constraints=constraints, batch_size=batch_size)


def free_run_dir(name: str, parent: Path = Path("runs")) -> Path:
    """Returns ``runs/<name>``, or with ``-2``, ``-3`` … the first that is not there."""
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path


def _section(choice: Any) -> Any:
    return {"kind": choice} if isinstance(choice, str) else choice


def _ignore(progress: Progress) -> None:
    del progress


def _remove_if_unused(run: RunDirectory) -> None:
    """Takes a directory away again in which nothing was ever asked, so that the user can mend and repeat."""
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        unused = next(iter(ledger.events()), None) is None
    if unused and read_origin(run.path) is None:  # what a copy belongs to may be at work on a cluster
        shutil.rmtree(run.path, ignore_errors=True)


__all__ = ["Campaign", "CampaignResult", "free_run_dir", "open_guidance", "optimize"]
