"""Batches that do not fit into memory: real networks that run out of it above a size."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pilotwave.algorithms.random_search import RandomPlan
from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.campaign import Campaign
from pilotwave.config.given import GivenBackboneConfig
from pilotwave.errors import InfrastructureError
from pilotwave.execution.fitting import is_out_of_memory, make_what_fits, memory_in_words
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.job import Progress
from pilotwave.execution.workers import GenerationRequest
from pilotwave.protocols import Backbone
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.limited_networks import with_little_memory
from pilotwave.testing.runtime_contract import assert_same_state, final_algorithm_state
from pilotwave.testing.small_campaign import answers_of, campaign, state_of
from pilotwave.testing.small_networks import small_image_backbone
from pilotwave.types import Draw, GeneratedBatch, Proposal

DRAWS = [Draw.of(7, 0, slot) for slot in range(10)]


@dataclass(frozen=True)
class Watched:
    """Unguided samples, and how many of them were wanted at once."""

    seen: list[int]
    couples_draws: bool = False

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        self.seen.append(len(draws))
        return RandomPlan().generate(backbone, draws)


def limited(most: int) -> Backbone:
    backbone = small_image_backbone()
    with_little_memory(backbone.denoiser, most)
    return backbone


def test_a_batch_is_halved_until_it_fits_and_comes_out_the_same() -> None:
    seen: list[int] = []
    made = make_what_fits(limited(3), Watched(seen), DRAWS)
    whole = make_what_fits(small_image_backbone(), RandomPlan(), DRAWS)
    assert seen == [10, 5, 2, 2, 2, 2, 2]
    assert (made.together, whole.together) == (2, None)
    assert torch.equal(made.batch.noise_sequence, whole.batch.noise_sequence)
    torch.testing.assert_close(made.batch.latents, whole.batch.latents, rtol=1e-4, atol=1e-4)
    assert torch.equal(made.batch.conditions, whole.batch.conditions)
    assert len(made.samples) == 10


def test_what_is_known_to_fit_is_not_tried_again() -> None:
    seen: list[int] = []
    assert make_what_fits(limited(3), Watched(seen), DRAWS[:7], together=3).together == 3
    assert seen == [3, 3, 1]


def test_one_sample_that_does_not_fit_is_one_clear_line() -> None:
    with pytest.raises(
        InfrastructureError,
        match=r"one sample of image does not fit into the memory of cpu \(\d+\.\d of \d+\.\d GiB free\): CUDA out "
        r"of memory. Tried to allocate 1 samples; choose a smaller model",
    ) as caught:
        make_what_fits(limited(0), RandomPlan(), DRAWS)
    assert "\n" not in str(caught.value)


def test_a_plan_that_couples_its_samples_is_not_split() -> None:
    with pytest.raises(InfrastructureError, match=r"10 samples .* needs them all at once.*lower budget.batch_size"):
        make_what_fits(limited(3), Watched([], couples_draws=True), DRAWS)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried ..."
        ),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_it_is_known_how_memory_runs_out(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_another_error_is_the_models_own() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
    backbone = small_image_backbone()
    backbone.steps = 99
    with pytest.raises(ValueError, match="expected a noise sequence"):
        make_what_fits(backbone, RandomPlan(), DRAWS)


def test_a_real_allocation_that_the_machine_refuses_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_memory_of_what_is_not_there_is_no_error() -> None:
    assert memory_in_words("cuda:63") == "how much there is cannot be told"


def test_redraws_keep_to_what_fits() -> None:
    request = GenerationRequest(Proposal(0, 6, Watched([])), 3, 8, frozenset(), together=4)
    result = generate_candidates(limited(4), [], request)
    assert (result.together, len(result.feasible)) == (4, 6)


def on(backbone: Backbone, queries: int = 24) -> Campaign:
    job = campaign(
        FaultyOracleConfig(delay=0.1),  # time for an interrupt to be seen
        {"kind": "inline", "mode": "synchronous", "evaluators": 2},
        queries=queries,
        algorithm={"kind": "fast-direct", "step_size": 0.5},
    )
    job.config = job.config.model_copy(update={"backbone": GivenBackboneConfig.of(backbone)})
    return job


def test_a_campaign_says_it_once_and_a_resumed_one_splits_where_the_other_did(tmp_path: Path) -> None:
    notes: list[str] = []

    def watch(progress: Progress) -> None:
        if progress.note and progress.note not in notes:
            notes.append(progress.note)

    whole = on(limited(3)).run(tmp_path / "whole", observe=watch)
    assert notes == ["memory is short: samples are made 2 at a time from now on, a batch in parts"]
    assert state_of(whole.run_dir).together == 2
    # A driver that has asked for five and stops; the next one does not look for the size again.
    interrupt = threading.Event()

    def stop(progress: Progress) -> None:
        if progress.spent >= 13:
            interrupt.set()

    on(limited(3)).run(tmp_path / "run", observe=stop, interrupt=interrupt)
    assert state_of(tmp_path / "run").stopped == "interrupted"
    again = on(limited(3)).resume(tmp_path / "run")
    assert answers_of(again.run_dir) == answers_of(whole.run_dir)
    assert_same_state(final_algorithm_state(again.run_dir), final_algorithm_state(whole.run_dir))
    with Ledger.open(again.run_dir / "ledger.sqlite", read_only=True) as ledger:
        made = [event.record for event in ledger.events() if event.kind is EventKind.GENERATED]
    assert [record["together"] for record in made] == [2, 2, 2]


def test_a_campaign_on_a_model_that_does_not_fit_at_all_ends_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        InfrastructureError, match="the model failed on proposal 0: one sample of image does not fit"
    ):
        on(limited(0)).run(tmp_path / "run")
