"""Whose turn it is among campaigns that share workers, against the rule spelled out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilotwave.execution.fair_queue import FairQueue


def anybody(asker: str) -> bool:
    return True


def test_the_one_with_the_fewest_at_work_is_next_then_who_waits_longest() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(4):
        queue.put("first", number)
    queue.put("second", 10)
    turns = [queue.next(anybody) for _ in range(5)]
    assert turns == [("first", 0), ("second", 10), ("first", 1), ("first", 2), ("first", 3)]
    assert queue.next(anybody) is None
    queue.put("second", 11)
    queue.put("third", 20)
    assert [queue.next(anybody), queue.next(anybody)] == [("third", 20), ("second", 11)]


def test_among_equals_turns_go_round() -> None:
    queue: FairQueue[int] = FairQueue()
    for asker in ("a", "b", "c"):
        for number in range(3):
            queue.put(asker, number)
    turns = []
    while (turn := queue.next(anybody)) is not None:
        turns.append(turn[0])
        queue.ended(turn[0])  # one at a time, so that nobody has anything at work when the next is chosen
    assert turns == ["a", "b", "c"] * 3


def test_who_may_not_go_is_passed_over_and_keeps_its_place() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.put("a", 1)
    queue.put("b", 2)
    assert queue.next(lambda asker: asker == "b") == ("b", 2)
    assert queue.next(lambda asker: False) is None
    assert queue.next(anybody) == ("a", 1)


@given(
    st.lists(st.tuples(st.sampled_from(["put", "next", "end", "withdraw"]), st.sampled_from("abc")), max_size=80)
)
def test_nothing_is_lost_or_given_out_twice_and_the_fewest_go_first(steps: list[tuple[str, str]]) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    at_work = dict.fromkeys("abc", 0)
    for number, (step, asker) in enumerate(steps):
        if step == "put":
            queue.put(asker, number)
            waiting[asker].append(number)
        elif step == "next":
            turn = queue.next(anybody)
            if turn is None:
                assert not any(waiting.values())
                continue
            chosen, item = turn
            assert item == waiting[chosen].pop(0)
            assert at_work[chosen] == min(at_work[other] for other in "abc" if waiting[other] or other == chosen)
            at_work[chosen] += 1
        elif step == "end" and at_work[asker]:
            queue.ended(asker)
            at_work[asker] -= 1
        elif step == "withdraw":
            assert queue.withdraw(asker, lambda item: item % 2 == 0) == [n for n in waiting[asker] if n % 2 == 0]
            waiting[asker] = [item for item in waiting[asker] if item % 2]
        assert len(queue) == sum(map(len, waiting.values()))
        assert [queue.at_work(other) for other in "abc"] == [at_work[other] for other in "abc"]
        assert [queue.waiting(other) for other in "abc"] == [len(waiting[other]) for other in "abc"]
