"""The owner of evaluators that several campaigns share: an actor with a name.

It dispatches: the campaign with the fewest questions at work first, then who waits longest, within the rate limits
of the oracle, over all. It has no state that matters: who shares says so again with every call. A question is asked
only while its driver is the newest of its run (:class:`pilotwave.execution.receipts.Asker`). May import ray and the
core.
"""

from __future__ import annotations

import asyncio
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pilotwave.errors import InputError, PilotwaveError
from pilotwave.execution.fair_queue import FairQueue
from pilotwave.execution.pacing import RateLimits
from pilotwave.execution.question import OracleIdentity, withdrawn
from pilotwave.execution.sizing import PoolSizing
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation
from pilotwave_actors.evaluator_crew import Crew, CrewPlan, Place
from pilotwave_actors.evaluator_pool import lost
from pilotwave_actors.sharing import (
    GONE_SECONDS,
    LINGER_SECONDS,
    SILENT_SECONDS,
    Sharer,
    is_newer,
)

TURN_SECONDS = 0.1
"""How often the owner looks around without being called."""


@dataclass(eq=False)
class Question:
    """One question on its way.

    Attributes:
        sharer: Whose.
        request: What.
        answer: Set when it has ended.
        place: Where it is being asked, None while it waits.
    """

    sharer: Sharer
    request: EvaluationRequest
    answer: asyncio.Future[Evaluation]
    place: Place | None = None

    def withdraw(self) -> None:
        """Ends it unasked."""
        if not self.answer.done():
            self.answer.set_result(withdrawn(QueryContext(self.request.query_id, self.request.attempt), "pool"))


class SharedEvaluatorsOwner:
    """Owns the evaluators that campaigns share; an asynchronous actor, found by its name.

    Args:
        plan: What every evaluator is like; each question says where its receipt goes.
        linger_seconds: How long it stays, with its evaluators, when nobody uses it.
    """

    def __init__(self, plan: CrewPlan, linger_seconds: float = LINGER_SECONDS) -> None:
        self._plan = plan
        self._linger_seconds = linger_seconds
        self._crew = Crew(plan, PoolSizing(1, 1, LINGER_SECONDS, plan.concurrency))
        self._queue: FairQueue[Question] = FairQueue()
        self._at_work: set[Question] = set()
        self._sharers: dict[str, Sharer] = {}
        self._heard: dict[str, float] = {}
        self._rates = RateLimits(plan.oracle.calls_per_minute, plan.oracle.cost_per_minute)
        context = ray.get_runtime_context()
        self._itself = context.current_actor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own, about how it does this
            made_again = context.was_current_actor_reconstructed
        if made_again:  # a call may have begun a moment before the last owner died
            self._rates.begin(time.monotonic(), self._expected_cost())
        self._used = time.monotonic()
        self._preflight = asyncio.Lock()
        self._passed = False
        self._failure: PilotwaveError | None = None
        self._awaited: set[Any] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._house: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def here(self, sharer: Sharer) -> PilotwaveError | None:
        """Takes note that a campaign is there; returns what makes waiting vain, or None."""
        try:
            self._welcome(sharer)
        except InputError as error:
            return error
        return self._failure

    async def identity(self, sharer: Sharer) -> OracleIdentity:
        """Waits until an oracle is up and returns what it is.

        Raises:
            PilotwaveError: None can be built.
        """
        self._welcome(sharer)
        while (identity := self._crew.identity()) is None:
            await asyncio.sleep(TURN_SECONDS / 2)
        return identity

    async def preflight(self, sharer: Sharer) -> None:
        """Asks the known question.

        Raises:
            PreflightError: The answer is not the known one.
        """
        async with self._preflight:
            if self._passed:  # it is the same oracle for all
                return
            await self.identity(sharer)
            await self._crew.anyone().preflight.remote()
            self._passed = True

    async def evaluate(self, sharer: Sharer, request: EvaluationRequest) -> Evaluation:
        """Asks a question when it is its turn; returns when it has ended."""
        question = Question(sharer, request, asyncio.get_running_loop().create_future())
        if self._welcome(sharer):
            self._queue.put(sharer.asker.driver, question)
            self._dispatch()
        else:
            question.withdraw()
        return await question.answer

    async def leave(self, sharer: Sharer) -> None:
        """Withdraws all that a campaign still has here."""
        if self._sharers.get(sharer.run) == sharer:
            self._dismiss(sharer)

    async def look(self) -> dict[str, Any]:
        """Returns how it stands, for people and tests."""
        return {
            "runs": sorted(self._sharers),
            "up": self._crew.up,
            "waiting": len(self._queue),
            "at_work": sorted(question.request.query_id for question in self._at_work),
            "minimum": self._crew.sizing.minimum,
            "maximum": self._crew.sizing.maximum,
        }

    def _welcome(self, sharer: Sharer) -> bool:
        """Takes note of who speaks; returns whether a younger driver of the same run has not spoken yet.

        Raises:
            InputError: The campaign asks for other evaluators than these.
        """
        if sharer.terms != self._plan.terms:
            raise InputError(
                f"runtime.share: the evaluators that are shared have {self._plan.terms}, this campaign wants "
                f"{sharer.terms}; make them equal, or choose another name to share under"
            )
        self._used = time.monotonic()
        if self._house is None:
            self._house = asyncio.get_running_loop().create_task(self._keep_house())
        known = self._sharers.get(sharer.run)
        if known is not None and known.asker != sharer.asker:
            if not is_newer(sharer, known):
                return False
            self._dismiss(known)
        if not self._sharers:
            self._crew.forgive()
        self._heard[sharer.run] = self._used
        if known != sharer:
            self._sharers[sharer.run] = sharer
            self._resize()
        return True

    def _resize(self) -> None:
        """The pool is as large as the campaign wants it that wants most; with none it stays for a while."""
        sharers = list(self._sharers.values())
        if sharers:
            sizing = self._crew.sizing
            sizing.maximum = max(sharer.most for sharer in sharers)
            sizing.minimum = max(sharer.fewest for sharer in sharers)
            sizing.idle_seconds = max(sharer.idle_seconds for sharer in sharers)
            self._review(at_once=True)

    async def _keep_house(self) -> None:
        while True:
            try:
                self._look_around(time.monotonic())
            except Exception:
                traceback.print_exc()  # into the actor's log; the house is kept all the same
            await asyncio.sleep(TURN_SECONDS)

    def _look_around(self, now: float) -> None:
        for run, sharer in list(self._sharers.items()):
            if now - self._heard[run] > GONE_SECONDS:
                self._dismiss(sharer)
        self._dispatch()
        self._review()
        if not self._sharers and now - self._used > self._linger_seconds:
            self._crew.close()
            ray.kill(self._itself)

    def _review(self, *, at_once: bool = False) -> None:
        paced = self._rates.seconds_until_free(time.monotonic()) > 0
        try:
            self._crew.review(0 if paced else self._waiting(), at_once=at_once)
            self._failure = None
        except PilotwaveError as error:
            self._failure = error
        for reference in self._crew.starting:
            if reference not in self._awaited:
                self._awaited.add(reference)
                self._spawn(self._await_start(reference))

    def _waiting(self) -> int:
        """How many questions could be asked if there were more places."""
        total = 0
        for sharer in self._sharers.values():
            driver = sharer.asker.driver
            if self._may_go(driver):
                total += min(self._queue.waiting(driver), sharer.most - self._queue.at_work(driver))
        return total

    def _may_go(self, driver: str) -> bool:
        for run, sharer in self._sharers.items():
            if sharer.asker.driver == driver:
                heard = time.monotonic() - self._heard[run] <= SILENT_SECONDS
                return heard and self._queue.at_work(driver) < sharer.most
        return False

    def _dispatch(self) -> None:
        while len(self._queue):
            now = time.monotonic()
            if (paced := self._rates.seconds_until_free(now)) > 0:
                if self._alarm is None or self._alarm.when() < asyncio.get_running_loop().time():
                    self._alarm = asyncio.get_running_loop().call_later(paced, self._dispatch)
                return
            place = self._crew.take()
            if place is None:
                return
            turn = self._queue.next(self._may_go)
            if turn is None:
                self._crew.put_back(place)
                return
            driver, question = turn
            question.place = place
            self._at_work.add(question)
            self._rates.begin(now, self._expected_cost())
            self._spawn(self._ask(driver, question, place))

    async def _ask(self, driver: str, question: Question, place: Place) -> None:
        sharer, request, since = question.sharer, question.request, time.time()
        gone = False
        try:
            evaluation: Evaluation = await place.member.actor.evaluate.remote(place.index, request, sharer.asker)
        except (RayActorError, RayTaskError) as error:
            gone = isinstance(error, RayActorError)
            evaluation = lost(error, request, sharer.asker.receipts, place.name, since)
        self._rates.end(evaluation.cost, self._expected_cost())
        self._at_work.discard(question)
        self._crew.give_back(place, gone=gone)
        self._queue.ended(driver)
        if not question.answer.done():
            question.answer.set_result(evaluation)
        self._dispatch()

    async def _await_start(self, reference: Any) -> None:
        try:
            outcome: OracleIdentity | Exception = await reference
        except (RayActorError, RayTaskError) as error:
            outcome = error
        self._awaited.discard(reference)
        self._crew.started(reference, outcome)
        self._dispatch()

    def _dismiss(self, sharer: Sharer) -> None:
        """Withdraws what waits for a campaign, and ends what is being asked for it."""
        del self._sharers[sharer.run], self._heard[sharer.run]
        for question in self._queue.withdraw(sharer.asker.driver):
            question.withdraw()
        for question in [item for item in self._at_work if item.sharer.asker == sharer.asker]:
            assert question.place is not None
            if self._plan.oracle.isolation == "thread":  # cannot be interrupted but with its actor
                self._crew.dismiss(question.place)
            else:
                request, place = question.request, question.place
                place.member.actor.cancel.remote(place.index, request.query_id, request.attempt)
        self._resize()

    def _expected_cost(self) -> float:
        declared = self._plan.oracle.expected_cost
        return 1.0 if declared is None else declared

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)


__all__ = ["SharedEvaluatorsOwner"]
