"""The drift monitor: it looks at every campaign that ends, and speaks only of what changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pilotwave.forgetting.corrective import JudgedAnswer
from pilotwave.forgetting.drift import FEWEST_ANSWERS
from pilotwave.forgetting.monitor import drift_among, drift_in_words, drift_warning


def answers(count: int, shift: float = 0.0) -> list[JudgedAnswer]:
    """Noisy answers of a smooth oracle; the second half is shifted."""
    random = np.random.default_rng(0)
    latents = random.normal(size=(count, 3))
    values = np.sin(latents).sum(1) + 0.1 * random.normal(size=count) + shift * (np.arange(count) >= count / 2)
    return [
        JudgedAnswer(f"p{number:04d}-00", latent, float(value), 1e9 + number, "evaluator-0", "1")
        for number, (latent, value) in enumerate(zip(latents, values, strict=True))
    ]


def test_it_says_when_answers_changed_and_what_to_do() -> None:
    found = drift_among(answers(120, shift=1.0))
    assert found.alarmed
    line = drift_in_words(found)
    assert line.startswith("answers changed around 2001-09-09 01:4")
    assert line.endswith("check the oracle, then pilotwave forget --corrective")


def test_it_is_quiet_where_nothing_changed() -> None:
    assert drift_in_words(drift_among(answers(120))).startswith("no drift seen in 120 answers")


def test_few_answers_and_odd_sizes() -> None:
    assert "too few to tell" in drift_in_words(drift_among([]))
    assert "too few to tell" in drift_in_words(drift_among(answers(FEWEST_ANSWERS - 1)))
    other = dataclasses.replace(answers(1)[0], latent=np.zeros(5))
    assert drift_among([*answers(60), other]).answers == 60


def test_a_run_that_cannot_be_tested_ends_without_a_word(tmp_path: Path) -> None:
    assert drift_warning(tmp_path) == ""
