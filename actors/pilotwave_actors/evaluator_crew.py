"""The evaluator actors of a pool: made, found gone, replaced, sent home. Nobody is waited for here.

The pool that holds a crew tells it how many questions wait and what became of its calls; the crew says which
places are free. Ray does not restart the actors: a new one is made for one that is gone, so that none is asked
before it is up again, and none that is not needed any more comes back. May import ray and the core.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from pilotwave.config.components import OracleConfig
from pilotwave.errors import InputError, PilotwaveError
from pilotwave.execution.backoff import rest_seconds
from pilotwave.execution.question import OracleIdentity
from pilotwave.execution.sizing import PoolSizing
from pilotwave_actors.evaluator import Evaluator
from pilotwave_actors.waiting import START_DEATHS, failure_of

REVIEW_SECONDS = 0.1
"""How often it is looked at whether the crew has the right size."""
ROLL_SECONDS = 1.0
"""How often it is looked at whether an idle actor is gone."""
REST_SECONDS = 0.5
"""How long a number rests after its actor could not start; it doubles each time."""


@dataclass(frozen=True)
class CrewPlan:
    """What every actor of a crew is like.

    Attributes:
        oracle: What each asks.
        resources: What each occupies.
        concurrency: How many questions each asks at once.
        receipts: Where answers are left, or None if every question says so itself.
    """

    oracle: OracleConfig
    resources: dict[str, float]
    concurrency: int = 1
    receipts: Path | None = None

    @property
    def terms(self) -> str:
        """What those who share must agree on, in words."""
        occupied = ", ".join(
            f"{name}: {amount:g}" for name, amount in sorted({"CPU": 1.0, **self.resources}.items())
        )
        return f"evaluator_resources {{{occupied}}} and evaluator_concurrency {self.concurrency}"


@dataclass(eq=False)
class Member:
    """One actor.

    Attributes:
        number: Small numbers are used first.
        actor: Its handle.
        starting: The call that returns once its oracle is up.
        staying: The call that ends with it.
        idle_since: When its last question ended; before its first, when it was asked for.
        identity: Of its oracle, once it is up.
        busy: Since when each place that is taken is.
    """

    number: int
    actor: Any
    starting: Any
    staying: Any
    idle_since: float
    identity: OracleIdentity | None = None
    busy: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Place:
    """Where one question is asked: which worker of which actor, and its name."""

    member: Member
    index: int
    name: str


class Crew:
    """The actors of one pool.

    Args:
        plan: What each is like.
        sizing: How many there shall be; its limits may be changed at any time.

    Attributes:
        actors: Their handles, by the names of their places.
    """

    def __init__(self, plan: CrewPlan, sizing: PoolSizing) -> None:
        self.sizing = sizing
        self.actors: dict[str, Any] = {}
        self._plan = plan
        self._members: dict[int, Member] = {}
        self._starting: dict[Any, Member] = {}
        self._resting: dict[int, tuple[float, int]] = {}
        self._free: list[tuple[int, int]] = []
        self._taken = 0
        self._up = 0
        self._was_up = False
        self._failure: PilotwaveError | None = None
        self._next_review = 0.0
        self._next_roll = 0.0

    @property
    def up(self) -> int:
        """How many questions can be in flight now."""
        return min(self._up * self._plan.concurrency, self.sizing.maximum)

    @property
    def starting(self) -> list[Any]:
        """The calls whose end is told by :meth:`started`."""
        return list(self._starting)

    def identity(self) -> OracleIdentity | None:
        """Returns what the oracle says of itself, None before one is up.

        Raises:
            PilotwaveError: None is up, and none will come up.
        """
        found = next((member.identity for member in self._members.values() if member.identity is not None), None)
        if found is None and self._failure is not None and self._is_hopeless():
            raise self._failure
        return found

    def review(self, waiting: int, *, at_once: bool = False) -> None:
        """Makes the crew as large as it should be and notices who is gone; most calls do nothing.

        Args:
            waiting: How many questions no place takes.
            at_once: Whether it is done even if that was a moment ago.

        Raises:
            PilotwaveError: None is up, and none will come up.
        """
        now = time.monotonic()
        if now < self._next_review and not at_once:
            return
        self._next_review = now + REVIEW_SECONDS
        self._call_the_roll(now)
        ages = [now - since for member in self._members.values() for since in member.busy.values()]
        needed = self.sizing.needed(waiting, ages)
        for number in range(self.sizing.most):
            if len(self._members) >= needed:
                break
            if number not in self._members and self._resting.get(number, (0.0, 0))[0] <= now:
                self._make(number, now)
        for member in sorted(self._members.values(), key=lambda member: -member.number):
            idle_for = now - member.idle_since
            if not member.busy and self.sizing.is_spare(len(self._members), needed, idle_for):
                self._dismiss(member)
        self.identity()

    def take(self) -> Place | None:
        """Returns a free place, now taken, or None if there is none."""
        while self._free and self._taken < self.sizing.maximum:
            number, index = heapq.heappop(self._free)
            member = self._members.get(number)
            if member is not None and member.identity is not None and index not in member.busy:
                member.busy[index] = time.monotonic()
                self._taken += 1
                return Place(member, index, self._name(number, index))
        return None

    def give_back(self, place: Place, *, gone: bool) -> None:
        """Frees a place.

        Args:
            place: Whose question has ended.
            gone: Whether its actor did not survive.
        """
        now, since = time.monotonic(), place.member.busy[place.index]
        place.member.idle_since = now
        if gone:
            self._dismiss(place.member)
        else:
            self.sizing.answered(now - since)
        self.put_back(place)

    def put_back(self, place: Place) -> None:
        """Frees a place that was not needed after all."""
        place.member.busy.pop(place.index)
        self._taken -= 1
        if self._members.get(place.member.number) is place.member:
            heapq.heappush(self._free, (place.member.number, place.index))

    def started(self, reference: Any, outcome: OracleIdentity | Exception) -> None:
        """Takes note of how one of :attr:`starting` ended: with an oracle, or an error of Ray's."""
        member = self._starting.pop(reference, None)
        if member is None:
            return
        if isinstance(outcome, Exception):
            self._failed_to_start(member, failure_of(outcome, "an evaluator"))
            return
        now = time.monotonic()
        self.sizing.came_up(now - member.idle_since)
        member.identity, member.idle_since = outcome, now
        self._was_up = True
        self._up += 1
        self._resting.pop(member.number, None)
        for index in range(self._plan.concurrency):
            heapq.heappush(self._free, (member.number, index))

    def anyone(self) -> Any:
        """Returns the handle of an actor that is up."""
        return next(member.actor for member in self._members.values() if member.identity is not None)

    def dismiss(self, place: Place) -> None:
        """Kills the actor of a place that is taken; its questions end as lost."""
        self._dismiss(place.member)

    def forgive(self) -> None:
        """Lets starts that failed be tried again at once: whoever mended the cause comes anew."""
        self._failure, self._was_up = None, False
        self._resting.clear()

    def close(self) -> None:
        """Kills all; their oracle processes die with them."""
        for member in list(self._members.values()):
            self._dismiss(member)

    def _make(self, number: int, now: float) -> None:
        plan, resources = self._plan, dict(self._plan.resources)
        names = [self._name(number, index) for index in range(plan.concurrency)]
        actor: Any = (
            ray.remote(Evaluator)
            .options(
                num_cpus=resources.pop("CPU", 1.0),
                num_gpus=resources.pop("GPU", 0.0),
                resources=resources,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=plan.concurrency + 2,  # one call stays, and one may come to cancel
            )
            .remote(plan.oracle, plan.receipts, names)
        )
        member = Member(number, actor, actor.start.remote(), actor.stay.remote(), now)
        self._members[number] = self._starting[member.starting] = member
        self.actors.update(dict.fromkeys(names, actor))

    def _call_the_roll(self, now: float) -> None:
        """Lets go of idle actors that are gone, with their node perhaps; a busy one's question says so itself."""
        if now < self._next_roll:
            return
        self._next_roll = now + ROLL_SECONDS
        idle = {
            member.staying: member
            for member in self._members.values()
            if not member.busy and member.identity is not None
        }
        gone, _ = ray.wait(list(idle), num_returns=len(idle), timeout=0, fetch_local=False) if idle else ([], [])
        for reference in gone:
            self._dismiss(idle[reference])

    def _failed_to_start(self, member: Member, failure: PilotwaveError) -> None:
        self._failure = failure
        times = self._resting.get(member.number, (0.0, 0))[1] + 1
        rest = rest_seconds(REST_SECONDS, 0, self._name(member.number, 0), times)
        self._resting[member.number] = (time.monotonic() + rest, times)
        self._dismiss(member)

    def _is_hopeless(self) -> bool:
        """Whether it is the user's fault that none ever started, or none is up and each was tried often enough."""
        if isinstance(self._failure, InputError) and not self._was_up:
            return True
        tried = [self._resting.get(number, (0.0, 0))[1] for number in range(self.sizing.fewest)]
        return not self._starting and min(tried) >= START_DEATHS

    def _dismiss(self, member: Member) -> None:
        """Kills an actor, also one that is gone or out of reach: it must not come back beside its successor."""
        if self._members.get(member.number) is not member:
            return
        del self._members[member.number]
        self._starting.pop(member.starting, None)
        self._up -= member.identity is not None
        for index in range(self._plan.concurrency):
            self.actors.pop(self._name(member.number, index), None)
        ray.kill(member.actor)

    def _name(self, number: int, index: int) -> str:
        return f"evaluator-{number * self._plan.concurrency + index}"


__all__ = ["Crew", "CrewPlan", "Member", "Place"]
