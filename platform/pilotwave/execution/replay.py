"""An algorithm rebuilt from a run directory: its newest checkpoint, then the ledger's later events in their order.

Nothing is written, so a driver may be at work. May import :mod:`pilotwave.archive`, :mod:`pilotwave.types` and
:mod:`pilotwave.storage`.
"""

from __future__ import annotations

from pathlib import Path

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.config.campaign import Objective
from pilotwave.errors import CheckpointError
from pilotwave.protocols import Algorithm
from pilotwave.storage import load_checkpoint
from pilotwave.types import Candidate, Observation, Proposal


def replay(
    run: RunDirectory,
    ledger: Ledger,
    state: CampaignState,
    objective: Objective,
    algorithm: Algorithm,
    *,
    before: int | None = None,
) -> dict[int, Proposal]:
    """Brings a fresh algorithm to where a state of the ledger stands.

    Args:
        run: Whose checkpoints may be used.
        ledger: Of the run, open for reading.
        state: Reduced from the ledger's events; later ones are left out.
        objective: Of the campaign.
        algorithm: Was told nothing yet.
        before: Only a checkpoint from before this event is used, so that what was proposed then is proposed again.

    Returns:
        What it proposed on the way, by number; what it had proposed before the checkpoint is not among it.

    Raises:
        CheckpointError: The checkpoint does not belong to this ledger.
        StorageError: The ledger cannot be read.
    """
    asked: dict[int, Proposal] = {}
    for event in ledger.events(_load_newest(run, state, algorithm, before)):
        if event.sequence > state.sequence:
            break
        if event.kind is EventKind.ASKED:
            proposal = algorithm.ask(event.record["count"])
            if proposal.number != event.record["proposal"]:
                raise CheckpointError(
                    f"{run.path}: the algorithm proposes number {proposal.number} where the ledger has "
                    f"{event.record['proposal']}; its checkpoint does not belong to this ledger"
                )
            asked[proposal.number] = proposal
        elif event.kind is EventKind.TOLD:
            ids = event.record["query_ids"]
            found = {candidate.query_id: candidate for candidate in ledger.candidates(ids)}
            algorithm.tell([observation_of(found[query_id], state, objective) for query_id in ids])
    return asked


def observation_of(candidate: Candidate, state: CampaignState, objective: Objective) -> Observation:
    """Returns what an algorithm is told of a candidate whose query has ended, or that a warm start took over."""
    evaluation = state.settled.get(candidate.query_id) or state.remembered[candidate.query_id]
    loss = None if evaluation.value is None else objective.loss(evaluation.value)
    return Observation(candidate, evaluation.status, loss)


def checkpoints_of(run: RunDirectory) -> list[Path]:
    """Returns the files of the algorithm's states, the oldest first."""
    return sorted(run.checkpoints.glob("[0-9]*.pt"))


def standing_at(checkpoint: Path) -> int:
    """Returns the event that a checkpoint stands at, by its file's name."""
    return int(checkpoint.stem)


def _load_newest(run: RunDirectory, state: CampaignState, algorithm: Algorithm, before: int | None) -> int:
    """Loads the newest readable checkpoint; returns the event it stands at, 0 without one."""
    for path in reversed(checkpoints_of(run)):
        if before is not None and standing_at(path) >= before:
            continue
        try:
            saved = load_checkpoint(path)
            if saved["sequence"] > state.sequence or saved["algorithm"] != algorithm.name:
                continue
            algorithm.load_state_dict(saved["state"])
            return int(saved["sequence"])
        except (CheckpointError, KeyError, ValueError):
            continue  # the ledger alone suffices: an older checkpoint or none only costs time
    return 0


__all__ = ["checkpoints_of", "observation_of", "replay", "standing_at"]
