"""How a pool grows and shrinks, on a virtual clock."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.execution.sizing import PoolSizing


@dataclass
class Pool:
    """Evaluators in virtual time: each is up some seconds after it was asked for, each answer takes its time."""

    sizing: PoolSizing
    start_seconds: float
    now: float = 0.0
    waiting: int = 0
    evaluators: list[tuple[float, float]] = field(default_factory=list)  # busy until, idle since
    busy: dict[int, float] = field(default_factory=dict)
    changes: list[int] = field(default_factory=list)

    def turn(self, seconds: float, answer_seconds: float, arriving: int = 0) -> None:
        self.now += seconds
        self.waiting += arriving
        for index, (until, _) in enumerate(self.evaluators):
            if index in self.busy and until <= self.now:
                self.sizing.answered(self.now - self.busy.pop(index))
                self.evaluators[index] = (until, self.now)
        for index, (until, since) in enumerate(self.evaluators):
            if self.waiting and index not in self.busy and until <= self.now:
                self.busy[index] = self.now
                self.evaluators[index] = (self.now + answer_seconds, since)
                self.waiting -= 1
        self._resize()

    def _resize(self) -> None:
        needed = self.sizing.needed(self.waiting, [self.now - since for since in self.busy.values()])
        before = len(self.evaluators)
        while len(self.evaluators) < needed:
            self.evaluators.append((self.now + self.start_seconds, self.now + self.start_seconds))
            self.sizing.came_up(self.start_seconds)
        while self.evaluators and len(self.evaluators) - 1 not in self.busy:
            idle_for = self.now - self.evaluators[-1][1]
            if not self.sizing.is_spare(len(self.evaluators), needed, idle_for):
                break
            self.evaluators.pop()
        if len(self.evaluators) != before:
            self.changes.append(len(self.evaluators) - before)


@given(
    minimum=st.integers(1, 20),
    more=st.integers(0, 20),
    each=st.integers(1, 5),
    waiting=st.integers(0, 100),
    ages=st.lists(st.floats(0.0, 1e5), max_size=20),
    answered=st.lists(st.floats(0.0, 1e4), max_size=5),
    started=st.lists(st.floats(0.01, 1e3), max_size=5),
)
def test_it_keeps_within_its_limits_and_never_wants_fewer_for_more(
    minimum: int,
    more: int,
    each: int,
    waiting: int,
    ages: list[float],
    answered: list[float],
    started: list[float],
) -> None:
    sizing = PoolSizing(minimum, minimum + more, 60.0, each)
    for seconds in answered:
        sizing.answered(seconds)
    for seconds in started:
        sizing.came_up(seconds)
    needed = sizing.needed(waiting, ages)
    assert math.ceil(minimum / each) <= needed <= math.ceil((minimum + more) / each)
    assert needed <= sizing.needed(waiting + 1, ages)
    assert needed * each >= min(minimum + more, len(ages))
    # Nothing that is needed is spare, however long it was idle; beyond the largest size everything is.
    assert not sizing.is_spare(needed, needed, 1e9)
    assert sizing.is_spare(sizing.most + 1, needed, 0.0)


def test_answers_that_take_longer_than_a_start_deserve_an_evaluator_each() -> None:
    sizing = PoolSizing(1, 64, 60.0)
    sizing.came_up(3.0)
    assert sizing.needed(20, []) == 1  # nothing is known yet: the first answers may be quick
    assert sizing.needed(20, [4.0]) == 21  # this one has taken longer already
    sizing.answered(600.0)
    assert sizing.needed(20, [0.0]) == 21
    assert sizing.needed(200, [0.0]) == 64


def test_quick_answers_hardly_make_it_grow() -> None:
    sizing = PoolSizing(1, 64, 60.0)
    sizing.came_up(3.0)
    sizing.answered(0.03)
    assert sizing.needed(20, [0.0]) == 2
    assert sizing.needed(1000, [0.0]) == 11


def test_a_pool_grows_with_a_burst_and_shrinks_after_it() -> None:
    pool = Pool(PoolSizing(2, 16, 60.0), start_seconds=5.0)
    sizes = []
    for second in range(600):
        pool.turn(1.0, answer_seconds=20.0, arriving=100 if second == 10 else 0)
        sizes.append(len(pool.evaluators))
    assert sizes[5] == 2
    assert max(sizes) == 16
    assert sizes[-1] == 2
    last_answer = next(second for second in range(599, 0, -1) if sizes[second] == 16)
    assert last_answer - 60 > 100 / 16 * 20  # no sooner than the idle time after the work was done
    assert pool.waiting == 0


@settings(max_examples=50, deadline=None)
@given(
    load=st.floats(0.5, 20.0),
    answer_seconds=st.floats(0.5, 200.0),
    start_seconds=st.floats(0.1, 60.0),
    seed=st.integers(0, 10_000),
)
def test_under_a_steady_load_it_does_not_flap(
    load: float, answer_seconds: float, start_seconds: float, seed: int
) -> None:
    """Once it has grown to the load, questions that come at random make it change its mind rarely."""
    draws = random.Random(seed)
    pool = Pool(PoolSizing(1, 64, 60.0), start_seconds)
    rate = load / answer_seconds
    for _ in range(4000):
        pool.turn(0.5, answer_seconds, sum(draws.random() < rate * 0.5 / 10 for _ in range(10)))
    # A time in which one can come and go again is at least the idle time: 2,000 s have room for 33 such.
    assert sum(change < 0 for change in pool.changes) <= 2000 / 60 + 1
    assert pool.waiting <= 3 * load * max(1.0, start_seconds / answer_seconds) + 20
