"""Campaigns that share a project archive: what they reuse, leave there, and how they end."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.project import ProjectArchive
from pilotwave.campaign import Campaign, optimize
from pilotwave.errors import InputError
from pilotwave.execution.job import Progress
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.report.results import write_results
from pilotwave.samples import Sample
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, RecordingOracle, RecordingOracleConfig
from pilotwave.testing.runtime_contract import answers_of, campaign, state_of
from pilotwave.types import Answer, Status

SYNCHRONOUS = {"kind": "inline", "evaluators": 2, "mode": "synchronous"}


class Chance(RecordingOracleConfig):
    """Says of itself that the same question may get another answer."""

    def build(self) -> Oracle:
        return ChanceOracle(self)


class ChanceOracle(RecordingOracle):
    name = "chance"
    deterministic = False


class Choosy(RecordingOracleConfig):
    """Costs 2.5 a question and never answers some."""

    def build(self) -> Oracle:
        return ChoosyOracle(self)


class ChoosyOracle(RecordingOracle):
    name = "choosy"

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        answer = super().evaluate(sample, context)
        if int(sample.identity(), 16) % 4 == 0:
            raise KeyError("a sample it doesn't like")
        return Answer(answer.value, {"half": answer.value / 2}, "coarse", 2.5)


def joined(folder: Path, kind: type[RecordingOracleConfig] = RecordingOracleConfig, **fields: Any) -> Campaign:
    """A campaign whose archive and whose oracle's records are in this folder."""
    oracle = kind(started_file=folder / "started", finished_file=folder / "finished", isolation="thread")
    archive = {"path": folder / "archive", **fields.pop("archive", {})}
    runtime = {**SYNCHRONOUS, **fields.pop("runtime", {})}
    return campaign(oracle, runtime, archive=archive, queries=fields.pop("queries", 16), **fields)


def asked(folder: Path) -> int:
    path = folder / "started"
    return len(path.read_text().split()) if path.exists() else 0


def kept(folder: Path) -> dict[str, Any]:
    with ProjectArchive.open(folder / "archive", read_only=True) as archive:
        rows = archive.table(columns=["record_id", "value", "status", "contributor", "reused_from", "cost"])
        return {row["record_id"]: row for row in rows.to_pylist()}


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_the_second_campaign_pays_for_what_is_new_only(tmp_path: Path, mode: str) -> None:
    # Without a random search an asynchronous campaign proposes other samples, as it knows other answers by then.
    fields = {"runtime": {"mode": mode}, "algorithm": {"kind": "random"}}
    joined(tmp_path, **fields, archive={"contributor": "alice"}).run(tmp_path / "one")
    first = answers_of(tmp_path / "one")
    rows = kept(tmp_path)
    assert len(rows) == 16
    assert sorted(row["value"] for row in rows.values()) == sorted(first.values())  # type: ignore[type-var]
    assert {row["contributor"] for row in rows.values()} == {"alice"}

    result = joined(tmp_path, **fields, queries=24).run(tmp_path / "two")
    state = state_of(tmp_path / "two")
    assert result.outcome.finished
    assert asked(tmp_path) == 16 + 24
    assert (state.spent, state.reused, state.saved_cost) == (24, 16, 16.0)
    assert first.items() <= answers_of(tmp_path / "two").items()
    taken = [item for item in state.settled.values() if item.reused_from is not None]
    assert {item.reused_from for item in taken} == set(rows)
    assert all((item.cost, item.worker, item.timings) == (0.0, "archive", None) for item in taken)
    # What was taken is not written a second time.
    assert len(kept(tmp_path)) == 16 + 24
    assert all(row["reused_from"] is None for row in kept(tmp_path).values())


def test_the_same_campaign_again_costs_nothing_and_ends(tmp_path: Path) -> None:
    seen: list[Progress] = []
    joined(tmp_path).run(tmp_path / "one")
    result = joined(tmp_path).run(tmp_path / "two", observe=seen.append)
    assert asked(tmp_path) == 16
    assert answers_of(tmp_path / "two") == answers_of(tmp_path / "one")
    assert (result.outcome.finished, result.outcome.spent) == (True, 0)
    assert "answered from the archive" in result.outcome.warnings[0]
    assert (seen[-1].reused, seen[-1].saved_cost) == (16, 16.0)
    # Resumed it has still nothing to do; with more budget it goes on where the other one ended.
    joined(tmp_path).resume(tmp_path / "two")
    assert asked(tmp_path) == 16
    assert joined(tmp_path, queries=20).resume(tmp_path / "two").outcome.spent == 20
    assert asked(tmp_path) == 36


def test_a_resumed_campaign_keeps_what_it_took_although_the_archive_has_gone(tmp_path: Path) -> None:
    joined(tmp_path).run(tmp_path / "one")
    interrupt = threading.Event()

    def stop(progress: Progress) -> None:
        if progress.spent:
            interrupt.set()

    joined(tmp_path, queries=24).run(tmp_path / "two", observe=stop, interrupt=interrupt)
    before = state_of(tmp_path / "two")
    assert before.reused == 16
    (tmp_path / "archive").rename(tmp_path / "lost")
    joined(tmp_path, queries=24).resume(tmp_path / "two")
    after = state_of(tmp_path / "two")
    assert (after.spent, after.reused) == (24, 16)
    assert all(after.settled[query_id] == item for query_id, item in before.settled.items())
    # The new archive holds all that this run paid for, also before it was there.
    assert len(kept(tmp_path)) == 24


def test_failures_are_kept_but_asked_again(tmp_path: Path) -> None:
    failures = {"maximum_rate": 1.0}
    joined(tmp_path, Choosy, failures=failures).run(tmp_path / "one")
    state = state_of(tmp_path / "one")
    assert state.failed > 0
    rows = kept(tmp_path)
    assert sorted(row["status"] for row in rows.values()).count("failed") == state.failed
    joined(tmp_path, Choosy, failures=failures).run(tmp_path / "two")
    again = state_of(tmp_path / "two")
    assert again.reused >= state.answered
    assert again.saved_cost == 2.5 * again.reused
    assert asked(tmp_path) == 16 + again.spent
    repeated = [name for name, item in state.settled.items() if item.status is Status.FAILED]
    assert set(repeated) <= set(again.reserved)
    taken = next(item for item in again.settled.values() if item.reused_from is not None)
    original = state.settled[taken.query_id]
    assert (taken.value, taken.fidelity, taken.properties) == (original.value, "coarse", original.properties)


def test_a_stochastic_oracle_is_asked_again_unless_told_otherwise(tmp_path: Path) -> None:
    joined(tmp_path, Chance).run(tmp_path / "one")
    joined(tmp_path, Chance).run(tmp_path / "two")
    assert asked(tmp_path) == 32
    assert state_of(tmp_path / "two").reused == 0
    joined(tmp_path, Chance, archive={"reuse": "exact"}).run(tmp_path / "three")
    assert asked(tmp_path) == 32


def test_off_only_writes_and_is_the_campaign_without_an_archive(tmp_path: Path) -> None:
    joined(tmp_path).run(tmp_path / "one")
    joined(tmp_path, archive={"reuse": "off"}).run(tmp_path / "two")
    assert asked(tmp_path) == 32
    assert len(kept(tmp_path)) == 32
    oracle = RecordingOracleConfig(started_file=tmp_path / "a", finished_file=tmp_path / "b", isolation="thread")
    without = campaign(oracle, SYNCHRONOUS, queries=16)
    without.run(tmp_path / "without")
    assert answers_of(tmp_path / "without") == answers_of(tmp_path / "two")
    metrics = RecordedRun.read(tmp_path / "without").state
    assert (metrics.reused, metrics.saved_cost) == (0, 0.0)


def test_another_version_is_another_question(tmp_path: Path) -> None:
    joined(tmp_path).run(tmp_path / "one")
    joined(tmp_path, Chance, archive={"reuse": "exact"}).run(tmp_path / "two")
    assert asked(tmp_path) == 32


def test_a_plain_function_is_not_mistaken_for_another_one(tmp_path: Path) -> None:
    notes: list[str] = []

    def run(factor: float, name: str, **archive: Any) -> Any:
        return optimize(
            {"kind": "analytic", "dim": 6, "steps": 3},
            lambda sample: factor * float(sample.array.sum()),
            queries=8,
            batch_size=8,
            algorithm="random",
            archive={"path": tmp_path / "archive", **archive},
            run_dir=tmp_path / name,
            observe=lambda progress: notes.append(progress.note),
        )

    run(1.0, "one")
    run(2.0, "two")
    assert state_of(tmp_path / "two").reused == 0
    assert any("a function has no version" in note for note in notes)
    values = [answers_of(tmp_path / name) for name in ("one", "two")]
    assert all(values[1][name] == pytest.approx(2 * (value or 0.0)) for name, value in values[0].items())
    run(1.0, "three", reuse="exact")
    assert state_of(tmp_path / "three").reused == 8


def test_tables_say_where_an_answer_is_from(tmp_path: Path) -> None:
    joined(tmp_path).run(tmp_path / "one")
    joined(tmp_path).run(tmp_path / "two")
    files = write_results(tmp_path / "two")
    table = files.files["evaluations"].read_text()
    assert all(record_id in table for record_id in kept(tmp_path))
    assert not {key for key in files.skipped if key != "learning_curve"}


def test_two_campaigns_at_once_lose_nothing(tmp_path: Path) -> None:
    threads = [
        threading.Thread(
            target=joined(tmp_path, seed=seed, archive={"reuse": "off"}).run, args=(tmp_path / str(seed),)
        )
        for seed in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept(tmp_path)) == 48


def test_an_owner_who_does_not_let_go_delays_nothing_and_loses_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("pilotwave.execution.archive_recorder.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("pilotwave.execution.archiving.CLOSING_SECONDS", 1.0)
    with ProjectArchive.create(tmp_path / "archive"):
        result = joined(tmp_path).run(tmp_path / "run")
    assert (result.outcome.finished, result.outcome.spent) == (True, 16)
    assert "pilotwave archive add" in result.outcome.warnings[0]
    assert not kept(tmp_path)
    joined(tmp_path).resume(tmp_path / "run")
    assert len(kept(tmp_path)) == 16
    assert asked(tmp_path) == 16


@pytest.mark.parametrize("wrong", ["file", "other things", "newer"])
def test_an_archive_that_is_none_is_said_before_anything_is_paid(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "archive"
    if wrong == "file":
        path.write_text("not a folder")
    elif wrong == "other things":
        path.mkdir()
        (path / "thesis.tex").write_text("years of work")
    else:
        ProjectArchive.create(path).close()
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError) as caught:
        joined(tmp_path).run(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert asked(tmp_path) == 0
    assert not (tmp_path / "run").exists()


def test_other_oracles_in_the_same_archive_are_not_mistaken(tmp_path: Path) -> None:
    joined(tmp_path).run(tmp_path / "one")
    other = campaign(
        FaultyOracleConfig(isolation="thread"), SYNCHRONOUS, archive={"path": tmp_path / "archive"}, queries=16
    )
    other.run(tmp_path / "two")
    assert state_of(tmp_path / "two").reused == 0
    assert len(kept(tmp_path)) == 32
