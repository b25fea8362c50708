from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pilotwave.algorithms.answers import Answers, best_first, standardise
from pilotwave.types import Candidate, Observation, Status

FINITE = st.floats(-1e300, 1e300, allow_nan=False)


def observation(name: str, loss: float | None, value: float = 0.0) -> Observation:
    candidate = Candidate(
        query_id=name,
        seed=7,
        proposal=3,
        noise_sequence=torch.full((5, 2, 3), value),
        latent=torch.full((2, 3), value),
        condition=torch.tensor([4]),
        sample=None,
    )
    return Observation(candidate, Status.OK if loss is not None else Status.FAILED, loss)


def test_every_answer_counts_once_and_the_order_of_telling_does_not_matter() -> None:
    told = [observation("b", 2.0, 1.0), observation("a", 1.0, 2.0), observation("c", None)]
    forwards, backwards = Answers((2, 3), 4), Answers((2, 3), 4)
    assert forwards.add(told) == ["a", "b"]
    assert forwards.add(told) == []
    for item in told[::-1]:
        backwards.add([item, item])
    for answers in (forwards, backwards):
        assert len(answers) == 2
        assert answers.ids == ["a", "b"]
        assert answers.losses.tolist() == [1.0, 2.0]
        assert answers.latents[:, 0, 0].tolist() == [2.0, 1.0]
        assert answers.noise_sequences.shape == (2, 5, 2, 3)
        assert answers.conditions.tolist() == [[4], [4]]
        assert answers.proposals.tolist() == [3, 3]
        assert answers.seeds.tolist() == [7, 7]


def test_a_latent_that_is_not_finite_teaches_nothing() -> None:
    answers = Answers((2, 3))
    assert answers.add([observation("a", 1.0, float("nan"))]) == []
    assert answers.latents.shape == (0, 2, 3)
    assert len(answers.standardised_losses()) == 0


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("count", [0, 3])
def test_a_restored_memory_is_the_same(steps: int | None, count: int) -> None:
    answers, restored = Answers((2, 3), steps), Answers((2, 3), steps)
    answers.add([observation(f"q{place}", place * 1.5, float(place)) for place in range(count)])
    state = answers.state_dict()
    rest = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    restored.load_state_dict({**json.loads(json.dumps(rest)), **tensors})
    for key, value in restored.state_dict().items():
        assert torch.equal(value, state[key]) if isinstance(value, Tensor) else value == state[key]


def test_a_state_of_another_shape_or_number_of_steps_is_refused() -> None:
    state = Answers((2, 3), 4).state_dict()
    with pytest.raises(ValueError, match=r"shape \(3, 2\), got \(2, 3\)"):
        Answers((3, 2), 4).load_state_dict(state)
    with pytest.raises(ValueError, match="5 sampler steps, got 4"):
        Answers((2, 3), 5).load_state_dict(state)
    with pytest.raises(ValueError, match="noise sequences"):
        _ = Answers((2, 3)).noise_sequences


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=20))
def test_any_finite_losses_are_standardised_to_finite_ones(losses: list[float]) -> None:
    scores = standardise(torch.tensor(losses, dtype=torch.float64))
    assert scores.isfinite().all()
    if scores.abs().max() > 0:
        assert float(scores.mean()) == pytest.approx(0.0, abs=1e-6)
        assert float(scores.square().mean()) == pytest.approx(1.0, rel=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=20),
    st.floats(1e-6, 1e6),
    st.floats(-1e3, 1e3),
)
def test_scale_and_shift_make_no_difference(losses: list[int], scale: float, shift: float) -> None:
    plain = torch.tensor(losses, dtype=torch.float64)
    moved = scale * (plain + shift)
    torch.testing.assert_close(standardise(moved), standardise(plain), rtol=1e-6, atol=1e-6)


def test_equal_losses_are_zeros_and_keep_their_order() -> None:
    losses = torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64)
    assert standardise(losses).tolist() == [0.0, 0.0, 0.0]
    assert best_first(torch.tensor([2.0, 1.0, 2.0, 1.0])).tolist() == [1, 3, 0, 2]
