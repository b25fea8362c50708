"""A run as its directory tells it: the campaign's words and everything its ledger holds, read only.

All reports start here, so they work while a campaign writes, after it was killed, and on a machine that lacks
the plug-ins it ran with. May import :mod:`pilotwave.archive`, :mod:`pilotwave.config` and :mod:`pilotwave.types`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory, no_run_in
from pilotwave.archive.state import CampaignState
from pilotwave.config.campaign import Objective
from pilotwave.config.loading import read_yaml
from pilotwave.errors import ConfigError, RunDirectoryError
from pilotwave.samples import Sample
from pilotwave.types import Candidate, Evaluation

_CHUNK = 64
"""How many candidates are in memory at once: each carries its whole noise sequence."""


@dataclass(frozen=True)
class Judged:
    """A candidate without its noise, and how it fared so far.

    Attributes:
        query_id: Its name.
        proposal: The number of the batch it came from.
        seed: Of its draw.
        sample: What was decoded, or None.
        infeasible: Why the oracle was not to be asked, or None.
        constraints: What constraints measured on it.
        evaluation: How its query ended, or None while it is open or if it was infeasible.
    """

    query_id: str
    proposal: int
    seed: int
    sample: Sample | None
    infeasible: str | None
    constraints: Mapping[str, float]
    evaluation: Evaluation | None

    @property
    def status(self) -> str:
        """The evaluation's status; without one ``"infeasible"`` or ``"open"``."""
        if self.evaluation is not None:
            return self.evaluation.status.value
        return "open" if self.infeasible is None else "infeasible"

    @property
    def properties(self) -> dict[str, float]:
        """What constraints measured and the oracle said beside the value."""
        said = {} if self.evaluation is None else self.evaluation.properties
        return {**self.constraints, **said}


@dataclass(frozen=True)
class RecordedRun:
    """What a run directory says, read once.

    Attributes:
        directory: Where it lies.
        name: The campaign's.
        objective: Which values are better.
        oracle: Its name, e.g. ``"xtb:polarizability"``.
        unit: The oracle's, ``""`` if it has none or the run was never started.
        media: The kind of sample, or None if nothing was decoded yet.
        state: Everything that can be counted.
        drawn: The query ids of all candidates, in the order they were made.
        evaluators: How many oracle workers the campaign asks for.
    """

    directory: RunDirectory
    name: str
    objective: Objective
    oracle: str
    unit: str
    media: str | None
    state: CampaignState
    drawn: tuple[str, ...]
    evaluators: int = 1

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Reads a run directory; a campaign may be writing to it.

        Raises:
            RunDirectoryError: There is no run here, or its campaign file cannot be read.
            StorageError: The ledger cannot be read.
        """
        directory = RunDirectory(run_dir)
        if not directory.exists():
            raise RunDirectoryError(no_run_in(run_dir))
        fields = _campaign_fields(directory)
        with Ledger.open(directory.ledger_file, read_only=True) as ledger:
            state, drawn = CampaignState(), list[str]()
            facts: Mapping[str, Any] = {}
            for event in ledger.events():  # one at a time: there may be millions
                state.apply(event)
                if event.kind is EventKind.GENERATED:
                    drawn += event.record["query_ids"]
                elif event.kind is EventKind.STARTED:
                    facts = event.record.get("facts", {})
            media = next((item.sample.media for item in _candidates(ledger, drawn) if item.sample), None)
        return cls(
            directory=directory,
            name=str(fields.get("name", directory.path.name)),
            objective=_objective(fields, directory),
            oracle=str(facts.get("oracle") or _kind(fields.get("oracle"))),
            unit=str(facts.get("unit", "")),
            media=media,
            state=state,
            drawn=tuple(drawn),
            evaluators=_evaluators(fields.get("runtime")),
        )

    def judged(self, query_ids: Sequence[str] | None = None) -> Iterator[Judged]:
        """Yields the candidates of these ids in the order given, all by default, a few in memory at a time."""
        with Ledger.open(self.directory.ledger_file, read_only=True) as ledger:
            for candidate in _candidates(ledger, self.drawn if query_ids is None else query_ids):
                yield Judged(
                    query_id=candidate.query_id,
                    proposal=candidate.proposal,
                    seed=candidate.seed,
                    sample=candidate.sample,
                    infeasible=candidate.infeasible,
                    constraints=candidate.properties,
                    evaluation=self.state.settled.get(candidate.query_id),
                )


def _candidates(ledger: Ledger, query_ids: Sequence[str]) -> Iterator[Candidate]:
    for start in range(0, len(query_ids), _CHUNK):
        yield from ledger.candidates(query_ids[start : start + _CHUNK])


def _campaign_fields(directory: RunDirectory) -> dict[str, Any]:
    try:
        return read_yaml(directory.campaign_file)[0]
    except ConfigError as error:
        raise RunDirectoryError(f"{directory.path} cannot be reported on: {error}") from error


def _objective(fields: Mapping[str, Any], directory: RunDirectory) -> Objective:
    try:
        return Objective.model_validate(fields.get("objective", {}))
    except ValidationError as error:
        raise RunDirectoryError(
            f"{directory.campaign_file}: objective: expected direction maximize or minimize, "
            f"got {fields.get('objective')!r}; undo the change"
        ) from error


def _evaluators(section: object) -> int:
    """Returns how many there are; 2, the default, if the file does not say."""
    count = section.get("evaluators") if isinstance(section, Mapping) else None
    return count if isinstance(count, int) and count > 0 else 2


def _kind(section: object) -> str:
    return str(section.get("kind", "oracle")) if isinstance(section, Mapping) else "oracle"


__all__ = ["Judged", "RecordedRun"]
