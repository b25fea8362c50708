"""Answers that are the same, near, or neither."""

from __future__ import annotations

import dataclasses
import statistics
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.archive.project import AnswerRecord, ProjectArchive
from pilotwave.archive.state import CampaignState
from pilotwave.execution.job import Progress
from pilotwave.execution.recall import Question, Recall
from pilotwave.samples import ArraySample, MoleculeSample, Sample
from pilotwave.testing.faulty_oracles import RecordingOracleConfig
from pilotwave.testing.runtime_contract import answers_of, campaign, state_of
from pilotwave.types import Candidate, Evaluation, Failure, Status

QUESTION = Question("judge", "3", "default", "model-1")
SHAPE = (2, 3)


def candidate(name: str, offset: float, condition: int = 0, sample: Sample | None = None) -> Candidate:
    latent = torch.full(SHAPE, offset)
    noise = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    array = ArraySample(latent.numpy() * 10)
    return Candidate(name, 5, 0, noise, latent, torch.tensor([condition]), array if sample is None else sample)


def record(item: Candidate, value: float | None, run: str = "run", **told: Any) -> AnswerRecord:
    status = told.pop("status", Status.OK if value is not None else Status.FAILED)
    failure = None if value is not None else Failure("embed", "no room")
    reused = told.pop("reused_from", None)
    evaluation = Evaluation(item.query_id, status, value, cost=2.0, failure=failure, reused_from=reused)
    asked = {**dataclasses.asdict(QUESTION), "campaign": "c", "run_id": run, "contributor": "", **told}
    return AnswerRecord.of(item, evaluation, **asked)


def archive_of(path: Path, *records: AnswerRecord) -> ProjectArchive:
    archive = ProjectArchive.create(path / "archive", latents="float32")
    archive.append(records)
    return archive


def test_the_same_question_has_the_same_answer(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, record(candidate("p0000-00", 0.1), 7.0), record(candidate("p0000-01", 0.2), 8.0))
    found = Recall(QUESTION, "this")(archive, candidate("p0005-03", 0.2))
    assert found.evaluation is not None
    assert (found.evaluation.query_id, found.evaluation.value) == ("p0005-03", 8.0)
    assert (found.evaluation.reused_from, found.evaluation.cost, found.saved_cost) == ("run/p0000-01", 0.0, 2.0)
    assert Recall(QUESTION, "this")(archive, candidate("p0005-04", 0.3)).evaluation is None


def test_what_another_campaign_adds_is_found_at_once(tmp_path: Path) -> None:
    archive_of(tmp_path, record(candidate("p0000-00", 0.1), 7.0)).close()
    recall = Recall(QUESTION, "this", "reuse", 0.05)
    with ProjectArchive.open(tmp_path / "archive", read_only=True) as reader:
        assert recall(reader, candidate("a", 0.5)).evaluation is None
        with ProjectArchive.open(tmp_path / "archive") as owner:
            owner.append([record(candidate("p0000-00", 0.5), 8.0, run="other")])
        same, near = recall(reader, candidate("a", 0.5)).evaluation, recall(reader, candidate("b", 0.51)).evaluation
        assert same is not None
        assert near is not None
        assert (same.value, near.value) == (8.0, 8.0)
        with ProjectArchive.open(tmp_path / "archive") as owner:
            owner.remove(["other/p0000-00"], reason="test")
        assert recall(reader, candidate("c", 0.5)).evaluation is None
        assert recall(reader, candidate("d", 0.51)).evaluation is None


@pytest.mark.parametrize("field", ["oracle", "oracle_version", "oracle_parameters"])
def test_another_oracle_s_answer_is_none(tmp_path: Path, field: str) -> None:
    archive = archive_of(tmp_path, record(candidate("p0000-00", 0.1), 7.0, **{field: "another"}))
    for recall in (Recall(QUESTION, "this"), Recall(QUESTION, "this", "reuse", 1.0)):
        assert recall(archive, candidate("p0001-00", 0.1)).evaluation is None


def test_the_model_does_not_matter_to_the_same_question_but_to_a_near_one(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, record(candidate("p0000-00", 0.1), 7.0, backbone="model-2"))
    assert Recall(QUESTION, "this")(archive, candidate("p0001-00", 0.1)).evaluation is not None
    assert Recall(QUESTION, "this", "reuse", 1.0)(archive, candidate("p0001-00", 0.11)).evaluation is None


def test_only_a_candidate_s_own_failure_is_taken_over(tmp_path: Path) -> None:
    archive = archive_of(
        tmp_path,
        record(candidate("p0000-00", 0.1), None, status=Status.FAILED),
        record(candidate("p0000-01", 0.2), None, status=Status.TIMED_OUT),
        record(candidate("p0000-02", 0.3), None, status=Status.INFEASIBLE),
    )
    recall = Recall(QUESTION, "this")
    assert recall(archive, candidate("a", 0.1)).evaluation is None
    assert recall(archive, candidate("b", 0.2)).evaluation is None
    taken = recall(archive, candidate("c", 0.3)).evaluation
    assert taken is not None
    assert (taken.status, taken.value) == (Status.INFEASIBLE, None)
    assert taken.failure is not None
    assert taken.failure.stage == "embed"


def test_an_answer_that_was_taken_itself_is_no_source(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, record(candidate("p0000-00", 0.1), 7.0, reused_from="another/p0000-00"))
    for recall in (Recall(QUESTION, "this"), Recall(QUESTION, "this", "average", 1.0)):
        assert recall(archive, candidate("p0001-00", 0.1)).evaluation is None


def test_a_molecule_in_another_shape_is_another_question(tmp_path: Path) -> None:
    block = "\n  pilotwave\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n{}{}  1  2  1  0\nM  END\n"
    atom = "{:10.4f}{:10.4f}{:10.4f} C   0  0  0  0  0  0  0  0  0  0  0  0\n"

    def ethane(length: float) -> MoleculeSample:
        return MoleculeSample(block.format(atom.format(0, 0, 0), atom.format(0, length, 0)), "CC")

    archive = archive_of(tmp_path, record(candidate("p0000-00", 0.1, sample=ethane(1.5)), 7.0))
    assert Recall(QUESTION, "this")(archive, candidate("a", 0.9, sample=ethane(1.5))).evaluation is not None
    assert Recall(QUESTION, "this")(archive, candidate("b", 0.9, sample=ethane(1.6))).evaluation is None


@settings(max_examples=25, deadline=None)
@given(
    offsets=st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=1, max_size=8, unique=True),
    asked=st.integers(-1000, 1000).map(lambda n: n / 1000),
    radius=st.floats(0.01, 0.5),
)
def test_near_is_a_distance_per_number(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[float], asked: float, radius: float
) -> None:
    archive = archive_of(
        tmp_path_factory.mktemp("near"),
        *(record(candidate(f"p0000-{i:02d}", offset), float(i)) for i, offset in enumerate(offsets)),
    )
    away = np.abs(np.array(offsets, np.float32) - np.float32(asked)).astype(float)
    if np.abs(away - radius).min() < 1e-5 or asked in offsets:
        return  # rounding decides, or it is the same question
    inside = [i for i in range(len(offsets)) if away[i] < radius]
    question = candidate("a", asked)
    nearest, mean, only_said = (Recall(QUESTION, "this", how, radius)(archive, question) for how in _WAYS)
    if not inside:
        assert all(found.evaluation is None and found.near is None for found in (nearest, mean, only_said))
        return
    assert nearest.evaluation is not None
    assert nearest.evaluation.value is not None
    assert away[int(nearest.evaluation.value)] == pytest.approx(away.min(), abs=1e-6)
    assert mean.evaluation is not None
    assert mean.evaluation.value == pytest.approx(statistics.fmean(inside))
    assert set(str(mean.evaluation.reused_from).split()) == {f"run/p0000-{i:02d}" for i in inside}
    assert only_said.evaluation is None
    assert only_said.near is not None
    assert only_said.near["distance"] == pytest.approx(away.min(), abs=1e-6)
    assert only_said.near["cost"] == 2.0


def test_of_its_own_answers_a_campaign_takes_near_ones_of_earlier_proposals(tmp_path: Path) -> None:
    mine = dataclasses.replace(candidate("p0001-00", 0.1), proposal=1)
    archive = archive_of(tmp_path, record(mine, 7.0, run="this"))
    recall = Recall(QUESTION, "this", "reuse", 0.05)
    later = dataclasses.replace(candidate("p0002-00", 0.11), proposal=2)
    beside = dataclasses.replace(candidate("p0001-01", 0.11), proposal=1)
    # What it has put into the archive itself is there by chance.
    assert recall(archive, later).evaluation is None
    assert recall(archive, mine).evaluation is None
    recall.own.add([record(mine, 7.0, run="this"), record(candidate("p0000-01", 0.1), None, run="this")])
    taken = recall(archive, later).evaluation
    assert taken is not None
    assert (taken.value, taken.reused_from) == (7.0, "this/p0001-00")
    assert recall(archive, beside).evaluation is None


def test_near_answers_of_its_own_do_not_depend_on_timing_or_interrupts(tmp_path: Path) -> None:
    def end(name: str, evaluators: int, delay: float, stop_at: int | None) -> CampaignState:
        files = {f"{word}_file": tmp_path / f"{name}-{word}" for word in ("started", "finished")}
        driven = campaign(
            RecordingOracleConfig(**files, isolation="thread", delay=delay),
            {"kind": "inline", "mode": "synchronous", "evaluators": evaluators},
            queries=16,
            batch_size=4,
            algorithm={"kind": "random"},
            archive={"path": tmp_path / name, "reuse": "near", "radius": 0.35},
        )
        run_dir, interrupt = tmp_path / f"run-{name}", threading.Event()
        if stop_at is None:
            return state_of(driven.run(run_dir).run_dir)

        def watch(told: Progress) -> None:
            if told.spent >= stop_at:
                interrupt.set()

        driven.run(run_dir, observe=watch, interrupt=interrupt)
        assert state_of(run_dir).stopped == "interrupted"
        return state_of(driven.resume(run_dir).run_dir)

    whole, interrupted = end("fast", 4, 0.0, None), end("slow", 1, 0.05, 5)
    assert whole.reused > 3
    assert whole.spent == interrupted.spent == 16
    values = [{name: item.value for name, item in state.settled.items()} for state in (whole, interrupted)]
    assert values[0] == values[1]


_WAYS: Any = ("reuse", "average", "query")


def test_another_condition_is_never_near(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, record(candidate("p0000-00", 0.1, condition=1), 7.0))
    recall = Recall(QUESTION, "this", "reuse", 1.0)
    assert recall(archive, candidate("a", 0.11, condition=2)).evaluation is None
    assert recall(archive, candidate("b", 0.11, condition=1)).evaluation is not None


@pytest.mark.parametrize("near", ["reuse", "average", "query"])
def test_a_campaign_with_answers_nearby(tmp_path: Path, near: str) -> None:
    def run(name: str, seed: int, **archive: Any) -> None:
        oracle = RecordingOracleConfig(
            started_file=tmp_path / "started", finished_file=tmp_path / "finished", isolation="thread"
        )
        campaign(
            oracle,
            {"kind": "inline", "mode": "synchronous"},
            queries=8,
            seed=seed,
            algorithm={"kind": "random"},
            archive={"path": tmp_path / "archive", **archive},
        ).run(tmp_path / name)

    run("one", 1)
    run("two", 2, reuse="near", radius=50.0, near=near)
    state, first = state_of(tmp_path / "two"), answers_of(tmp_path / "one")
    asked = len((tmp_path / "started").read_text().split())
    if near == "query":
        assert (state.spent, state.reused, state.near, state.near_cost, asked) == (8, 0, 8, 8.0, 16)
        return
    assert (state.spent, state.reused, state.saved_cost, asked) == (0, 8, 8.0, 8)
    values = [value for value in answers_of(tmp_path / "two").values() if value is not None]
    if near == "reuse":
        assert set(values) <= set(first.values())
    else:
        assert values == pytest.approx([statistics.fmean(v for v in first.values() if v is not None)] * 8)
