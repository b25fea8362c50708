from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.state import CampaignState
from pilotwave.errors import RunDirectoryError, StorageError, TakenOverError
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave.types import Candidate, Evaluation, Failure, Status, Timings


def candidate(query_id: str, sample: Sample | None, infeasible: str | None = None) -> Candidate:
    noise = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))
    return Candidate(
        query_id=query_id,
        seed=2**62 + 7,
        proposal=3,
        noise_sequence=noise,
        latent=noise.sum(0),
        condition=torch.tensor([5], dtype=torch.int64),
        sample=sample,
        infeasible=infeasible,
        properties={"strain": 12.5},
    )


SAMPLES: list[Sample | None] = [
    ArraySample(np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)),
    ImageSample(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "boot"),
    MoleculeSample("block\n", "CCO", False, 1),
    None,
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "ledger.sqlite", {"campaign": "abc"})


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda item: type(item).__name__)
def test_a_candidate_comes_back_as_it_was(ledger: Ledger, sample: Sample | None) -> None:
    written = candidate("p0003-01", sample, None if sample else "decode: nothing")
    ledger.add_candidates([written], {"proposal": 3})
    read = ledger.candidate("p0003-01")
    assert torch.equal(read.noise_sequence, written.noise_sequence)
    assert torch.equal(read.latent, written.latent)
    assert torch.equal(read.condition, written.condition)
    assert (read.seed, read.proposal, read.infeasible) == (written.seed, 3, written.infeasible)
    assert read.properties == {"strain": 12.5}
    if sample is None:
        assert read.sample is None
    else:
        assert read.sample is not None
        assert read.sample.payload() == sample.payload()
        assert read.sample.identity() == sample.identity()


@given(array=hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)))
@settings(max_examples=30, deadline=None)
def test_any_array_survives_its_payload(array: np.ndarray) -> None:
    sample = ArraySample(array)
    again = ArraySample.from_payload(*sample.payload())
    assert np.array_equal(again.array, array, equal_nan=True)
    assert again.identity() == sample.identity()


@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    cost=st.floats(0, 1e300),
    text=st.text(max_size=40),
    attempt=st.integers(1, 99),
)
@settings(max_examples=50, deadline=None)
def test_any_evaluation_survives_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, value: float, cost: float, text: str, attempt: int
) -> None:
    ledger = Ledger.create(tmp_path_factory.mktemp("run") / "ledger.sqlite", {})
    answered = Evaluation(
        "q", Status.OK, value, attempt, cost, text, Timings(1.25, 1e10 + 1 / 3), None, {text: value}, text, None
    )
    failed = Evaluation("r", Status.FAILED, failure=Failure(text, text, True))
    events = [ledger.settle(EventKind.SETTLED, item) for item in (answered, failed)]
    assert [event.sequence for event in events] == [1, 2]
    assert [event.evaluation() for event in ledger.events()] == [answered, failed]
    ledger.close()


def test_nothing_can_be_changed_or_taken_away(ledger: Ledger) -> None:
    ledger.append(EventKind.STARTED, {"facts": {}})
    ledger.add_candidates([candidate("a", None, "x")], {"proposal": 0})
    raw = sqlite3.connect(ledger.path)
    for statement in (
        "DELETE FROM events",
        "UPDATE events SET record = '{}'",
        "DELETE FROM candidates",
        "UPDATE candidates SET seed = 0",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)


def test_candidates_and_their_event_are_written_all_or_nothing(ledger: Ledger) -> None:
    ledger.add_candidates([candidate("a", None, "x")], {"proposal": 0})
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add_candidates([candidate("b", None, "x"), candidate("a", None, "x")], {"proposal": 1})
    assert [event.record["proposal"] for event in ledger.events()] == [0]
    assert ledger.candidates(["a", "b"])[0].query_id == "a"
    assert len(ledger.candidates(["a", "b"])) == 1


def test_candidates_come_in_the_order_asked_for(ledger: Ledger) -> None:
    names = [f"c{i}" for i in range(1200)]
    ledger.add_candidates([candidate(name, None, "x") for name in names], {"proposal": 0})
    wanted = names[::-7]
    assert [item.query_id for item in ledger.candidates(wanted)] == wanted


def test_a_reader_sees_what_a_writer_has_just_written(ledger: Ledger) -> None:
    with Ledger.open(ledger.path, read_only=True) as reader:
        assert list(reader.events()) == []
        ledger.append(EventKind.ASKED, {"proposal": 0, "count": 4})
        assert [event.kind for event in reader.events()] == [EventKind.ASKED]
        with pytest.raises(StorageError):
            reader.append(EventKind.ASKED, {})


def test_a_writer_that_was_overtaken_writes_nothing_any_more(ledger: Ledger) -> None:
    ledger.append(EventKind.RESERVED, {"query_id": "p0", "attempt": 1})
    with Ledger.open(ledger.path) as other:  # as if the lock that keeps writers apart had been lost
        other.append(EventKind.RESERVED, {"query_id": "p1", "attempt": 1})
        for _ in range(2):
            with pytest.raises(TakenOverError, match="another optimizer has taken this campaign over"):
                ledger.append(EventKind.RESERVED, {"query_id": "p2", "attempt": 1})
        with pytest.raises(TakenOverError):
            ledger.add_candidates([candidate("p0003-01", SAMPLES[0])], {"proposal": 3})
        other.append(EventKind.RESERVED, {"query_id": "p3", "attempt": 1})
        assert [event.record["query_id"] for event in other.events()] == ["p0", "p1", "p3"]
        assert other.candidates(["p0003-01"]) == []


def test_a_write_that_failed_does_not_look_like_somebody_else_s(ledger: Ledger) -> None:
    ledger.append(EventKind.RESERVED, {"query_id": "p0", "attempt": 1})
    with pytest.raises(ValueError, match="Out of range"):
        ledger.append(EventKind.RESERVED, {"query_id": "p1", "attempt": 1, "cost": float("nan")})
    ledger.add_candidates([candidate("a", SAMPLES[0])], {"proposal": 1})
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add_candidates([candidate("a", SAMPLES[0])], {"proposal": 1})
    ledger.append(EventKind.RESERVED, {"query_id": "p1", "attempt": 1})


def test_a_closed_ledger_is_one_plain_file_that_opens_from_a_read_only_place(ledger: Ledger) -> None:
    ledger.append(EventKind.ASKED, {"proposal": 0, "count": 4})
    assert ledger.path.with_name("ledger.sqlite-wal").exists()
    ledger.close()
    assert [path.name for path in ledger.path.parent.iterdir()] == ["ledger.sqlite"]
    immutable = sqlite3.connect(f"{ledger.path.as_uri()}?mode=ro&immutable=1", uri=True)
    assert immutable.execute("SELECT count(*) FROM events").fetchone() == (1,)
    with Ledger.open(ledger.path) as again:
        again.append(EventKind.ASKED, {"proposal": 1, "count": 4})
        assert len(list(again.events())) == 2


def test_missing_foreign_and_future_ledgers_are_refused(tmp_path: Path, ledger: Ledger) -> None:
    with pytest.raises(RunDirectoryError, match="no ledger here"):
        Ledger.open(tmp_path / "other.sqlite")
    with pytest.raises(RunDirectoryError, match="exists already"):
        Ledger.create(ledger.path, {})
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be read as one" * 10)
    with pytest.raises(StorageError, match="cannot be read"):
        Ledger.open(tmp_path / "text.sqlite")
    raw = sqlite3.connect(ledger.path)
    raw.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    raw.commit()
    with pytest.raises(RunDirectoryError, match="expected ledger format 1, got 99"):
        Ledger.open(ledger.path)


def test_a_full_disk_is_one_clear_line_and_loses_nothing(ledger: Ledger) -> None:
    ledger.append(EventKind.RESERVED, {"query_id": "a", "attempt": 1})
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")  # what sqlite meets when the disk is full

    def write_until_it_fails() -> None:
        for i in range(1000):
            ledger.append(EventKind.RESERVED, {"query_id": f"b{i}" * 50, "attempt": 1})

    with pytest.raises(StorageError, match=r"full.*pilotwave resume"):
        write_until_it_fails()
    kept = len(list(ledger.events()))
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    ledger.append(EventKind.RESERVED, {"query_id": "c", "attempt": 1})
    assert len(list(ledger.events())) == kept + 1


def test_what_was_acknowledged_survives_kill_nine(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from pilotwave.archive.ledger import EventKind, Ledger
        ledger = Ledger.create(Path({str(path)!r}), {{}})
        number = 0
        while True:
            ledger.append(EventKind.RESERVED, {{"query_id": str(number), "attempt": 1}})
            print(number, flush=True)
            number += 1
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 40:
            os.kill(process.pid, signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    process.wait()
    acknowledged = int(rest[-1]) if rest else acknowledged
    with Ledger.open(path) as ledger:
        written = [int(event.record["query_id"]) for event in ledger.events()]
    assert written[: acknowledged + 1] == list(range(acknowledged + 1))
    assert len(written) <= acknowledged + 2  # at most the one in flight


def test_the_state_counts_what_happened(ledger: Ledger) -> None:
    ledger.append(EventKind.STARTED, {"facts": {}})
    ledger.append(EventKind.ASKED, {"proposal": 0, "count": 2})
    drawn = [candidate("a", SAMPLES[2]), candidate("b", SAMPLES[0]), candidate("c", None, "decode: torn")]
    record = {"proposal": 0, "query_ids": ["a", "b", "c"], "feasible": ["a", "b"], "passes": 2, "seconds": 0.5}
    ledger.add_candidates(drawn, record)
    state = CampaignState.of(ledger.events())
    assert state.open_queries() == ["a", "b"]
    assert (state.spent, state.infeasible, state.answered) == (0, 1, 0)
    for query_id in ("a", "b"):
        ledger.append(EventKind.RESERVED, {"query_id": query_id, "attempt": 1})
    ledger.settle(EventKind.ATTEMPTED, Evaluation("b", Status.FAILED, failure=Failure("scf", "no", True)))
    ledger.append(EventKind.RESERVED, {"query_id": "b", "attempt": 2})
    ledger.settle(EventKind.SETTLED, Evaluation("a", Status.OK, 1.0))
    ledger.settle(EventKind.SETTLED, Evaluation("b", Status.TIMED_OUT, attempt=2, failure=Failure("x", "y")))
    ledger.append(EventKind.TOLD, {"query_ids": ["a", "b"]})
    state = CampaignState.of(ledger.events())
    assert (state.spent, state.answered, state.failed, state.attempted) == (2, 1, 1, 1)
    assert state.reserved == {"a": 1, "b": 2}
    assert state.told == ["a", "b"]
    assert state.open_queries() == []
    assert ledger.feasible_identities() == {"CCO", SAMPLES[0].identity()}  # type: ignore[union-attr]


def test_what_is_written_together_is_there_at_once_or_not_at_all(ledger: Ledger) -> None:
    with Ledger.open(ledger.path, read_only=True) as reader:
        with ledger.together():
            ledger.append(EventKind.ASKED, {"proposal": 0, "count": 1})
            ledger.add_candidates([candidate("a", SAMPLES[0])], {"proposal": 0})
            assert list(reader.events()) == []
            ledger.commit()
            assert len(list(reader.events())) == 2
            with ledger.together():
                ledger.append(EventKind.RESERVED, {"query_id": "a", "attempt": 1})
            assert len(list(reader.events())) == 2
        assert [event.sequence for event in reader.events()] == [1, 2, 3]


def test_an_error_of_the_loop_keeps_what_was_written_and_one_of_the_storage_nothing(ledger: Ledger) -> None:
    def turn(query_id: str, error: Exception | None, *twins: Candidate) -> None:
        with ledger.together():
            ledger.append(EventKind.RESERVED, {"query_id": query_id, "attempt": 1})
            if error is not None:
                raise error
            ledger.add_candidates(twins, {"proposal": 1})

    with pytest.raises(RuntimeError):
        turn("a", RuntimeError())
    with pytest.raises(StorageError):
        turn("b", StorageError("the disk is full"))
    twin = candidate("x", SAMPLES[0])
    with pytest.raises(sqlite3.IntegrityError):
        turn("c", None, twin, twin)
    ledger.append(EventKind.RESERVED, {"query_id": "d", "attempt": 1})
    assert [event.record["query_id"] for event in ledger.events()] == ["a", "c", "d"]
    assert [event.sequence for event in ledger.events()] == [1, 2, 3]
    assert ledger.candidates(["x"]) == []


def test_a_writer_that_was_overtaken_in_the_middle_of_a_turn_writes_nothing_of_it(ledger: Ledger) -> None:
    def turn() -> None:
        with ledger.together():
            ledger.append(EventKind.RESERVED, {"query_id": "p2", "attempt": 1})

    ledger.append(EventKind.RESERVED, {"query_id": "p0", "attempt": 1})
    with Ledger.open(ledger.path) as other:
        other.append(EventKind.RESERVED, {"query_id": "p1", "attempt": 1})
        for _ in range(2):
            with pytest.raises(TakenOverError):
                turn()
        assert [event.record["query_id"] for event in other.events()] == ["p0", "p1"]


def test_how_queries_ended_is_found_from_behind(ledger: Ledger) -> None:
    for number in range(5):
        ledger.settle(EventKind.SETTLED, Evaluation(f"q{number}", Status.OK, float(number)))
    found = ledger.ends_of(["q3", "q1", "q4", "none"], before=5)
    assert {name: item.value for name, item in found.items()} == {"q3": 3.0, "q1": 1.0}
