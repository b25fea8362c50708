"""What a campaign knows, against a plain set; and at a generator elsewhere that is sent the news, and forgets."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from pilotwave.execution.known import Known, KnownElsewhere, KnownSamples

names = st.lists(st.text(max_size=6), max_size=60)


@given(before=names, after=names)
def test_it_is_a_set_and_what_was_known_at_a_moment_stays_what_it_was(before: list[str], after: list[str]) -> None:
    samples = KnownSamples(before)
    then = samples.now()
    for name in after:
        samples.add(name)
    assert len(samples) == len({*before, *after})
    assert all(name in samples for name in (*before, *after))
    assert [name in then for name in after] == [name in set(before) for name in after]
    travelled = pickle.loads(pickle.dumps(then))
    assert [name in travelled for name in (*before, *after)] == [name in then for name in (*before, *after)]
    assert len(travelled) == len(then) == len(set(before))


def test_it_holds_many_and_no_others_in_24_bytes_each() -> None:
    samples = KnownSamples(f"known {number}" for number in range(50_000))
    assert len(samples) == 50_000
    assert all(f"known {number}" in samples for number in range(50_000))
    assert not any(f"other {number}" in samples for number in range(50_000))
    assert (
        len(samples._order) * samples._order.itemsize + len(samples._table) * samples._table.itemsize <= 24 * 50_000
    )
    assert len(pickle.dumps(samples.now())) < 9 * 50_000


@given(batches=st.lists(st.tuples(names, st.booleans()), max_size=8))
def test_a_generator_is_sent_what_it_lacks_also_after_it_was_started_again(
    batches: list[tuple[list[str], bool]],
) -> None:
    samples, elsewhere, sent, before = KnownSamples(), KnownElsewhere(), 0, set[str]()
    for batch, is_started_again in batches:
        if is_started_again:
            elsewhere = KnownElsewhere()
        known = samples.now()
        there = elsewhere.after(known.news(since=sent))
        if isinstance(there, int):
            assert is_started_again
            there = elsewhere.after(known.news(since=there))
        assert isinstance(there, Known)
        assert [name in there for name in batch] == [name in before for name in batch]
        assert len(there) == len(before)
        sent = len(known)
        for name in batch:
            samples.add(name)
        before |= set(batch)


def test_campaigns_that_share_a_generator_know_nothing_of_each_other() -> None:
    one, other, elsewhere = KnownSamples(["a"]), KnownSamples(["b"]), KnownElsewhere()
    there = [elsewhere.after(samples.now().news(since=0)) for samples in (one, other)]
    assert [[name in known for name in "ab"] for known in there if isinstance(known, Known)] == [
        [True, False],
        [False, True],
    ]
    elsewhere.forget(one.campaign)
    one.add("c")
    assert elsewhere.after(one.now().news(since=1)) == 0


def test_an_older_request_that_comes_late_sees_what_was_known_when_it_was_made() -> None:
    samples, elsewhere = KnownSamples(["a"]), KnownElsewhere()
    early = samples.now()
    samples.add("b")
    elsewhere.after(samples.now().news(since=0))
    late = elsewhere.after(early.news(since=0))
    assert isinstance(late, Known)
    assert ("a" in late, "b" in late) == (True, False)
