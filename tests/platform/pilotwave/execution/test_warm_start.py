"""A campaign that begins with earlier answers."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.project import ProjectArchive
from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.campaign import CampaignResult, optimize
from pilotwave.execution.warm_start import _best_and_others
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.samples import ArraySample
from pilotwave.testing.runtime_contract import answers_of, state_of
from pilotwave.types import Draw

BACKBONE = {"kind": "analytic", "dim": 12, "steps": 6}
BATCH = 12


def _hidden() -> np.ndarray[Any, np.dtype[np.float32]]:
    backbone = AnalyticBackboneConfig.model_validate(BACKBONE).build()
    draws = [Draw.of(77, 0, 0)]
    latents = backbone.sample(backbone.draw_noise(draws), backbone.draw_conditions(draws))
    sample = backbone.decode(latents, backbone.draw_conditions(draws))[0]
    assert isinstance(sample, ArraySample)
    return sample.array


HIDDEN = _hidden()


def distance(sample: ArraySample) -> float:
    """How far a sample is from a hidden one that the model could draw."""
    return float(np.square(sample.array - HIDDEN).sum())


def run(folder: Path, name: str, **fields: Any) -> CampaignResult:
    archive = {"path": folder / "archive", "reuse": "off", **fields.pop("archive", {})}
    given = {"algorithm": "trust-direct", "seed": 1, "queries": 5 * BATCH, "backbone": BACKBONE, **fields}
    return optimize(
        given.pop("backbone"),
        distance,
        direction="minimize",
        batch_size=BATCH,
        runtime={"kind": "inline", "mode": "synchronous", "evaluators": 2},
        archive=archive,
        run_dir=folder / name,
        **given,
    )


def batch_mean(folder: Path, name: str, number: int) -> float:
    state = state_of(folder / name)
    values = [state.settled[query_id].value for query_id in state.proposals[number].query_ids]
    return statistics.fmean(value for value in values if value is not None)


@given(st.integers(0, 40), st.integers(1, 50), st.integers(0, 2**63 - 1))
def test_half_are_the_best_and_the_rest_are_any(known: int, count: int, seed: int) -> None:
    ranked = [f"r{number}" for number in range(known)]
    chosen = _best_and_others(ranked, count, seed)
    assert len(chosen) == len(set(chosen)) == min(known, count)
    assert chosen[: (count + 1) // 2] == ranked[: (count + 1) // 2]
    assert chosen == sorted(chosen, key=ranked.index)
    assert chosen == _best_and_others(ranked, count, seed)


def test_the_first_batch_is_guided_by_what_is_known(tmp_path: Path) -> None:
    run(tmp_path, "earlier", queries=8 * BATCH)
    for seed in (2, 3):
        run(tmp_path, f"warm-{seed}", seed=seed, queries=BATCH, archive={"warm_start": 40})
        run(tmp_path, f"cold-{seed}", seed=seed, queries=BATCH)
        assert batch_mean(tmp_path, f"warm-{seed}", 0) < 0.5 * batch_mean(tmp_path, f"cold-{seed}", 0)
        state = state_of(tmp_path / f"warm-{seed}")
        assert len(state.remembered) == 40
        assert state.told[:2] == ["w0001", "w0002"]
        assert state.spent == BATCH


def test_what_is_told_is_in_the_run_s_own_ledger(tmp_path: Path) -> None:
    run(tmp_path, "earlier")
    run(tmp_path, "warm", seed=2, queries=BATCH, archive={"warm_start": 10})
    state = state_of(tmp_path / "warm")
    with ProjectArchive.open(tmp_path / "archive", read_only=True) as archive:
        kept = {item.query_id: archive.get(str(item.reused_from)) for item in state.remembered.values()}
    values = [record.value for record in kept.values() if record.value is not None]
    assert list(kept) == [f"w{number:04d}" for number in range(1, 11)]
    assert values == sorted(values)
    earlier = sorted(
        item.value for item in state_of(tmp_path / "earlier").settled.values() if item.value is not None
    )
    assert values[:5] == earlier[:5]
    with Ledger.open(tmp_path / "warm" / "ledger.sqlite", read_only=True) as ledger:
        candidates = {item.query_id: item for item in ledger.candidates(list(kept))}
    for name, record in kept.items():
        assert candidates[name].proposal == -1
        assert record.noise is not None
        assert np.array_equal(candidates[name].noise_sequence.numpy(), record.noise.astype(np.float32))
        assert state.remembered[name].value == record.value
    # They are nobody's results here, cost nothing, and are not asked about again.
    assert (state.spent, state.answered, state.reused) == (BATCH, BATCH, 0)
    assert not any(name.startswith("w") for name in RecordedRun.read(tmp_path / "warm").drawn)


@pytest.mark.parametrize("what", ["another model", "nothing yet", "another oracle"])
def test_without_fitting_answers_it_begins_cold_and_says_so(tmp_path: Path, what: str) -> None:
    notes: list[str] = []
    if what == "another model":
        run(tmp_path, "earlier", backbone={**BACKBONE, "steps": 5}, queries=BATCH)
    elif what == "another oracle":
        optimize(
            BACKBONE,
            lambda sample: float(sample.array.sum()),
            queries=BATCH,
            batch_size=BATCH,
            archive={"path": tmp_path / "archive"},
            run_dir=tmp_path / "earlier",
        )
    run(tmp_path, "warm", queries=BATCH, archive={"warm_start": 10}, observe=lambda told: notes.append(told.note))
    run(tmp_path, "cold", queries=BATCH)
    assert any(note.startswith("no warm start") for note in notes)
    assert any("made by other backbones" in note for note in notes) == (what == "another model")
    assert answers_of(tmp_path / "warm") == answers_of(tmp_path / "cold")
    assert state_of(tmp_path / "warm").answered == BATCH


def test_a_resumed_campaign_does_not_start_warm_again(tmp_path: Path) -> None:
    run(tmp_path, "earlier")
    run(tmp_path, "warm", seed=2, queries=BATCH, archive={"warm_start": 10})
    run(tmp_path, "warm", seed=2, queries=2 * BATCH, archive={"warm_start": 10})
    state = state_of(tmp_path / "warm")
    assert state.spent == 2 * BATCH
    assert len(state.remembered) == 10
    assert sum(name.startswith("w") for name in state.told) == 10
