"""Suspects: the relatives of answers known to be wrong are found, and few others."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.errors import InputError
from pilotwave.forgetting.answers import answers_of_run
from pilotwave.forgetting.corrective import JudgedAnswer, suspects
from pilotwave.samples import ArraySample, Sample
from pilotwave.testing.faulty_oracles import score
from pilotwave.testing.steered_run import steer

COUNT, START = 120, 70


def answers(seed: int, fault: str, size: float) -> tuple[list[JudgedAnswer], set[str]]:
    """A campaign that moves through six dimensions, and the ids of those answers that are wrong.

    ``time``: all from the 71st on are shifted. ``worker``: those of worker b from there on. ``window``: 25 of them.
    """
    random = np.random.default_rng(seed)
    moving = np.linspace(0, 1, COUNT)[:, None]
    latents = random.normal(size=(COUNT, 6)) * (1 - 0.4 * moving) + moving
    values = np.sin(latents @ random.normal(size=6)) + 0.2 * (latents**2).sum(1) + 0.1 * random.normal(size=COUNT)
    workers = ["abc"[place % 3] for place in range(COUNT)]
    wrong = np.arange(COUNT) >= START
    if fault == "worker":
        wrong &= np.array([worker == "b" for worker in workers])
    elif fault == "window":
        wrong &= np.arange(COUNT) < START + 25
    values = values + size * values.std() * wrong
    found = [
        JudgedAnswer(f"q{place:03d}", latents[place], float(values[place]), 60.0 * place, workers[place], "1")
        for place in range(COUNT)
    ]
    return found, {item.record_id for item, is_wrong in zip(found, wrong, strict=True) if is_wrong}


def recall_and_precision(seed: int, fault: str, size: float, known: int = 4) -> tuple[float, float]:
    found, wrong = answers(seed, fault, size)
    told = np.random.default_rng(seed).choice(sorted(wrong), known, replace=False).tolist()
    rest = wrong - set(told)
    proposed = {item.record_id for item in suspects(found, told) if item.proposed}
    return len(proposed & rest) / len(rest), len(proposed & rest) / max(1, len(proposed))


@pytest.mark.parametrize(
    ("fault", "size", "least_recall", "least_precision"),
    [
        ("time", 4.0, 0.95, 0.95),
        ("time", 2.0, 0.95, 0.9),
        ("worker", 2.0, 0.9, 0.9),
        ("window", 2.0, 0.7, 0.9),
    ],
)
def test_an_oracle_that_began_to_answer_wrongly(
    fault: str, size: float, least_recall: float, least_precision: float
) -> None:
    results = [recall_and_precision(seed, fault, size) for seed in range(8)]
    recalls, precisions = zip(*results, strict=True)
    assert min(recalls) >= least_recall
    assert min(precisions) >= least_precision
    assert np.mean(recalls) >= 0.94
    assert np.mean(precisions) >= 0.97


def test_small_errors_are_found_in_part() -> None:
    results = [recall_and_precision(seed, "time", 1.0) for seed in range(8)]
    recalls, precisions = zip(*results, strict=True)
    assert np.mean(recalls) >= 0.85
    assert np.mean(precisions) >= 0.9


def test_a_single_wrong_answer_in_a_good_campaign_condemns_few() -> None:
    found, _ = answers(3, "worker", 0.0)
    found[60] = dataclasses.replace(found[60], value=found[60].value + 8.0)
    assert len([item for item in suspects(found, ["q060"]) if item.proposed]) <= 3


def test_in_a_campaign_of_ours(tmp_path: Path) -> None:
    """A worker whose instrument is off from the 61st question on, in a real campaign's directory."""

    def judge(sample: Sample, number: int) -> float:
        assert isinstance(sample, ArraySample)
        good = score(sample) + 0.3 * math.sin(float(sample.array[0]) * 2)
        return good + (6.0 if is_wrong(number) else 0.0)

    def is_wrong(number: int) -> bool:
        return number >= 60 and number % 2 == 1

    run = steer(tmp_path / "run", algorithm={"kind": "noise-search"}, batches=10, batch_size=10, judge=judge)
    found = answers_of_run(run.path)
    assert len(found) == 100
    wrong = {f"p{number // 10:04d}-{number % 10:02d}" for number in range(100) if is_wrong(number)}
    ranked = suspects(found, ["p0006-05", "p0008-01"])
    proposed = {item.record_id for item in ranked if item.proposed}
    rest = wrong - {"p0006-05", "p0008-01"}
    assert len(proposed & rest) >= 0.9 * len(rest)
    assert len(proposed & rest) >= 0.9 * len(proposed)
    top = ranked[0]
    assert top.record_id in wrong
    assert top.reasons[0] == "the same worker (evaluator-1)"
    assert [reason for reason in top.reasons if reason.startswith("disagrees with its neighbours (z = +")]


@given(seed=st.integers(0, 1000), size=st.floats(0, 5), known=st.integers(1, 6), data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_pure_function_of_the_set(seed: int, size: float, known: int, data: st.DataObject) -> None:
    found, wrong = answers(seed, "time", size)
    found, told = found[::2], sorted(wrong & {item.record_id for item in found[::2]})[:known]
    ranked = suspects(found, told)
    assert {item.record_id for item in ranked} == {item.record_id for item in found} - set(told)
    scores = [item.score for item in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    shuffled = data.draw(st.permutations(found))
    assert suspects(shuffled, told[::-1]) == ranked


@given(factor=st.sampled_from([0.125, 2.0, 1024.0]), seed=st.integers(0, 50))
@settings(max_examples=6, deadline=None)
def test_the_unit_of_the_answers_makes_no_difference(factor: float, seed: int) -> None:
    found, wrong = answers(seed, "time", 3.0)
    told = sorted(wrong)[::12]
    scaled = [dataclasses.replace(item, value=factor * item.value) for item in found]
    first, second = suspects(found, told), suspects(scaled, told)
    assert {item.record_id for item in first if item.proposed} == {
        item.record_id for item in second if item.proposed
    }
    by_id = {item.record_id: item.score for item in second}
    assert all(abs(item.score - by_id[item.record_id]) < 1e-6 for item in first)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_very_few_or_equal_answers_do_not_break_it(count: int) -> None:
    for spread in (0.0, 1.0):
        few = [
            JudgedAnswer(f"q{place}", np.full(3, spread * place), spread * place, float(place))
            for place in range(count)
        ]
        ranked = suspects(few, ["q1"])
        assert len(ranked) == count - 1
        assert all(0 <= item.score <= 1 for item in ranked)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["q000", "nobody"], "expected ids of answers with a value, got nobody"),
        ([], "expected ids of answers with a value, got none"),
        ([f"q{place:03d}" for place in range(COUNT)], "got all of them"),
    ],
)
def test_ids_that_say_nothing_are_one_clear_line(wrong: list[str], message: str) -> None:
    found, _ = answers(0, "time", 1.0)
    with pytest.raises(InputError, match=message):
        suspects(found, wrong)
