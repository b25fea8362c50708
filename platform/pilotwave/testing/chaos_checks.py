"""Whether a campaign that was killed again and again kept its promises: judged from outside.

Three witnesses are compared: the ledger, the record that the oracle kept by itself, and what anybody saw of the
ledger before a kill. May import :mod:`pilotwave.archive` and the standard library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.spending import DEFAULT_COST
from pilotwave.archive.state import CampaignState
from pilotwave.testing.call_record import Call
from pilotwave.types import Status

TOLERANCE = 1e-9
"""Relative, of a sum of costs."""


@dataclass(frozen=True)
class Kill:
    """One strike against a running campaign.

    Attributes:
        kind: What was killed, e.g. ``"evaluator"``.
        place: Where the campaign ran.
        victims: The ids of the processes that were killed, or cut off.
        node: The mark of the node that was hit as a whole, or nothing.
        began: Just before, seconds since the epoch.
        ended: When all of it had taken effect: right after a signal, or when the last process that could not live
            on was gone.
        settled: How many queries had ended before.
        ends_optimizer: Whether the optimizer could not live on.
    """

    kind: str
    place: str
    victims: tuple[int, ...]
    node: str
    began: float
    ended: float
    settled: int
    ends_optimizer: bool


@dataclass(frozen=True)
class Attempt:
    """One attempt in the ledger.

    Attributes:
        query_id: At which query.
        number: 1 for the first.
        reserved: When it was written down, seconds since the epoch.
        ended: When it ended or was superseded, or None.
        cost: What it is charged with.
    """

    query_id: str
    number: int
    reserved: float
    ended: float | None
    cost: float

    def is_open(self, moment: float) -> bool:
        """Says whether it was in flight then."""
        return self.reserved <= moment and (self.ended is None or moment < self.ended)


@dataclass
class Verdict:
    """What came of it.

    Attributes:
        broken: The promises that were broken, a line each; none if all were kept.
        kills: By kind.
        in_flight: By kind: how many evaluations were in flight at those kills, all together.
        repeated: By kind: how many evaluations those kills made the oracle be asked again.
        spent: Queries.
        calls: Of the oracle.
        attempts: In the ledger.
    """

    broken: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    spent: int = 0
    calls: int = 0
    attempts: int = 0


def judge(
    run_dir: Path, queries: int, calls: Sequence[Call], kills: Sequence[Kill], seen: Mapping[str, float | None]
) -> Verdict:
    """Compares the witnesses once a campaign has ended.

    Args:
        run_dir: Of the campaign, which asked an oracle that answers every question.
        queries: Its budget.
        calls: Of the oracle, in order.
        kills: In order.
        seen: Every answer that was in the ledger at any earlier look.
    """
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        events = list(ledger.events())
    state = CampaignState.of(events)
    attempts = attempts_of(events)
    verdict = Verdict(spent=state.spent, calls=len(calls), attempts=len(attempts))
    verdict.broken += _unfinished(state, queries, run_dir)
    verdict.broken += _lost(events, state, calls, seen)
    verdict.broken += _charged_wrongly(state, attempts, calls)
    verdict.broken += _repeated_needlessly(attempts, calls, kills, verdict)
    return verdict


def attempts_of(events: Sequence[Event]) -> list[Attempt]:
    """Returns the attempts in the order in which they were written down."""
    found: list[Attempt] = []
    open_at: dict[str, int] = {}

    def end(query_id: str, when: float, cost: float | None) -> None:
        place = open_at.pop(query_id, None)
        if place is not None:
            item = found[place]
            found[place] = replace(item, ended=when, cost=item.cost if cost is None else cost)

    for event in events:
        query_id = event.record.get("query_id", "")
        if event.kind is EventKind.RESERVED:
            end(query_id, event.time, None)
            open_at[query_id] = len(found)
            cost = event.record.get("cost", DEFAULT_COST)
            found.append(Attempt(query_id, event.record["attempt"], event.time, None, cost))
        elif event.kind is EventKind.ATTEMPTED:
            end(query_id, event.time, event.record["cost"])
        elif event.kind is EventKind.SETTLED:
            place = open_at.get(query_id)
            own = place is not None and found[place].number == event.record["attempt"]
            # An earlier attempt that was taken for lost and had answered costs once; a later one was no call.
            end(query_id, event.time, event.record["cost"] if own else 0.0)
            if not own:
                number = _latest(found, query_id, event.record["attempt"])
                found[number] = replace(found[number], cost=event.record["cost"])
    return found


def _latest(attempts: Sequence[Attempt], query_id: str, number: int) -> int:
    return max(place for place, item in enumerate(attempts) if (item.query_id, item.number) == (query_id, number))


def _unfinished(state: CampaignState, queries: int, run_dir: Path) -> list[str]:
    broken = []
    if state.stopped != "finished":
        broken.append(f"the campaign did not finish: it stands at {state.stopped!r}")
    if (state.spent, len(state.settled)) != (queries, queries):
        broken.append(f"{queries} queries were to be spent, {state.spent} were, {len(state.settled)} ended")
    if len(state.told) != len(set(state.told)) or set(state.told) != set(state.settled):
        broken.append(f"the algorithm was told {len(state.told)} times of {len(state.settled)} queries")
    if left := sorted(path.name for path in (run_dir / "receipts").glob("*.json")):
        broken.append(f"receipts were left: {left[:3]}")
    return broken


def _lost(
    events: Sequence[Event], state: CampaignState, calls: Sequence[Call], seen: Mapping[str, float | None]
) -> list[str]:
    """What was settled once stays settled, once, and as the oracle answered."""
    broken = []
    times = Counter(event.record["query_id"] for event in events if event.kind is EventKind.SETTLED)
    broken += [f"{query_id} ended {count} times" for query_id, count in times.items() if count > 1]
    said = {call.query_id: call.value for call in calls if call.value is not None}
    for query_id, evaluation in state.settled.items():
        if evaluation.status is not Status.OK:
            broken.append(f"{query_id} ended as {evaluation.status}: {evaluation.failure}")
        elif evaluation.value != said.get(query_id):
            broken.append(f"{query_id} is {evaluation.value} in the ledger, the oracle said {said.get(query_id)}")
    for query_id, value in seen.items():
        now = state.settled.get(query_id)
        if now is None or now.value != value:
            broken.append(f"{query_id} was {value} at an earlier look and is {now and now.value} now")
    return broken


def _charged_wrongly(state: CampaignState, attempts: Sequence[Attempt], calls: Sequence[Call]) -> list[str]:
    """Each query counts once, each attempt costs once, and nothing was asked that had not been reserved."""
    broken = []
    cost = sum(item.cost for item in attempts)
    if state.spending.held or abs(state.spending.ended - cost) > TOLERANCE * max(1.0, cost):
        broken.append(
            f"the attempts cost {cost}, the ledger says {state.spending.ended} and holds {state.spending.held}"
        )
    if state.spent != len({item.query_id for item in attempts}):
        broken.append(f"{state.spent} queries are charged for, {len({a.query_id for a in attempts})} were reserved")
    reserved: dict[tuple[str, int], list[float]] = {}
    for item in attempts:
        reserved.setdefault((item.query_id, item.number), []).append(item.reserved)
    asked: Counter[tuple[str, int]] = Counter()
    for call in calls:
        key = (call.query_id, call.attempt)
        asked[key] += 1
        before = sum(moment <= call.asked for moment in reserved.get(key, []))
        if asked[key] > before:
            broken.append(f"{key} was asked {asked[key]} times after it had been reserved {before} times")
    return broken


def _repeated_needlessly(
    attempts: Sequence[Attempt], calls: Sequence[Call], kills: Sequence[Kill], verdict: Verdict
) -> list[str]:
    """Each repetition has a kill that explains it, and no kill explains more than were in flight then."""
    room = []
    for kill in kills:
        verdict.kills[kill.kind] += 1
        flying = in_flight(attempts, kill)
        verdict.in_flight[kill.kind] += flying
        room.append(flying)
    earlier: dict[str, Call] = {}
    repetitions: list[tuple[Call, Call]] = []
    for call in calls:
        if call.query_id in earlier:
            repetitions.append((earlier[call.query_id], call))
        earlier[call.query_id] = call
    reasons = [
        [place for place, kill in enumerate(kills) if _explains(kill, lost, again, attempts)]
        for lost, again in repetitions
    ]
    chosen = _matched(reasons, room)
    broken = []
    for (lost, again), place in zip(repetitions, chosen, strict=True):
        if place is None:
            broken.append(
                f"{again.query_id} was asked again at {again.asked:.3f} though no kill explains it: it had been "
                f"asked at {lost.asked:.3f} by process {lost.actor} and answered at {lost.answered}"
            )
        else:
            verdict.repeated[kills[place].kind] += 1
    return broken


def in_flight(attempts: Sequence[Attempt], kill: Kill) -> int:
    """Returns how many evaluations were in flight at the fullest moment between a kill and its full effect."""
    moments = [kill.began, *(item.reserved for item in attempts if kill.began <= item.reserved <= kill.ended)]
    return max(sum(item.is_open(moment) for item in attempts) for moment in moments)


def _explains(kill: Kill, lost: Call, again: Call, attempts: Sequence[Attempt]) -> bool:
    """Says whether a kill can have cost this call its answer."""
    if not (lost.asked <= kill.ended and kill.began <= again.asked):
        return False
    own = (item for item in attempts if item.query_id == lost.query_id)
    if not any(item.reserved <= kill.ended and (item.ended is None or item.ended >= kill.began) for item in own):
        return False
    if kill.ends_optimizer:
        return True
    return (
        lost.process in kill.victims or lost.actor in kill.victims or (kill.node != "" and kill.node == lost.node)
    )


def _matched(reasons: Sequence[Sequence[int]], room: Sequence[int]) -> list[int | None]:
    """Gives each repetition one of its reasons: as many as possible have one, and none has more than fits."""
    chosen: list[int | None] = [None] * len(reasons)
    holders: dict[int, list[int]] = {}

    def place(item: int, tried: set[int]) -> bool:
        for reason in reasons[item]:
            if reason in tried:
                continue
            tried.add(reason)
            held = holders.setdefault(reason, [])
            if len(held) < room[reason]:
                held.append(item)
                chosen[item] = reason
                return True
            for other in list(held):
                if place(other, tried):
                    held.remove(other)
                    held.append(item)
                    chosen[item] = reason
                    return True
        return False

    for item in range(len(reasons)):
        place(item, set())
    return chosen


__all__ = ["Attempt", "Kill", "Verdict", "attempts_of", "in_flight", "judge"]
