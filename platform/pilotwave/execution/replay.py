"""An algorithm rebuilt from a run directory: its newest checkpoint, then the ledger's later events in their order.

Nothing is written, so a driver may be at work. May import :mod:`pilotwave.archive`, :mod:`pilotwave.types` and
:mod:`pilotwave.storage`.
"""

from __future__ import annotations

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.config.campaign import Objective
from pilotwave.errors import CheckpointError
from pilotwave.execution.checkpoints import checkpoints_of, standing_at
from pilotwave.protocols import Algorithm
from pilotwave.storage import load_checkpoint
from pilotwave.types import Candidate, Evaluation, Observation, Proposal


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
    ended: dict[str, Evaluation] = {}
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
            ended |= ledger.ends_of([query_id for query_id in ids if query_id not in ended], event.sequence)
            told = [(candidate, ended.pop(candidate.query_id)) for candidate in ledger.candidates(ids)]
            algorithm.tell([observation_of(candidate, end, objective) for candidate, end in told])
        elif event.kind in (EventKind.SETTLED, EventKind.REMEMBERED):
            ended[event.record["query_id"]] = event.evaluation()
    return asked


def observation_of(candidate: Candidate, evaluation: Evaluation, objective: Objective) -> Observation:
    """Returns what an algorithm is told of a candidate whose query has ended, or that a warm start took over."""
    loss = None if evaluation.value is None else objective.loss(evaluation.value)
    return Observation(candidate, evaluation.status, loss)


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


__all__ = ["observation_of", "replay"]
