"""Every task of every suite builds and judges a handful of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pilotwave.backbones.image.dataset import DEBIAN_FOLDER
from pilotwave.bench.measures import measure_molecules, nearest, spread
from pilotwave.bench.naturalness import Naturalness
from pilotwave.bench.objectives import asymmetry, coarse_rating, cross_entropy, distance_to, rating
from pilotwave.bench.run import closing
from pilotwave.bench.suites import SUITES, load_suite
from pilotwave.bench.task import Task
from pilotwave.errors import InputError
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.workers import GenerationRequest
from pilotwave.types import Candidate, Proposal

needs_pictures = pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs the package dataset-fashion-mnist")


def handful(task: Task, count: int = 4) -> tuple[list[Candidate], list[float | None]]:
    from pilotwave.algorithms.random_search import RandomPlan

    torch.set_num_threads(1)
    backbone = task.backbone("cpu")
    assert backbone.media == task.media
    request = GenerationRequest(Proposal(0, count, RandomPlan()), 5, 8, frozenset())
    drawn = list(generate_candidates(backbone, task.constraints(), request).candidates)
    asked = [candidate for candidate in drawn if candidate.infeasible is None]
    samples: list[Any] = [candidate.sample for candidate in asked]
    latents = torch.stack([candidate.latent for candidate in asked])
    conditions = torch.stack([candidate.condition for candidate in asked])
    with closing(task.objective()) as objective:
        losses = objective.judge(samples, latents, conditions)
        assert objective.judge([], latents[:0], conditions[:0]) == []
    measured = task.measure()(drawn, asked)
    assert all(np.isfinite(value) for value in (*measured.quality.values(), *measured.diversity.values()))
    assert task.measure()(drawn, []).diversity.keys() <= {"fresh"}
    return asked, losses


def check(task: Task) -> None:
    asked, losses = handful(task)
    assert len(losses) == len(asked) == 4
    assert all(loss is not None and np.isfinite(loss) for loss in losses)
    assert handful(task)[1] == losses
    if task.unseen is not None:
        assert set(_classes(task.unseen("cpu"))).isdisjoint(_classes(task.backbone("cpu")))


def _classes(backbone: Any) -> list[int]:
    from pilotwave.types import Draw

    return backbone.draw_conditions([Draw.of(1, 0, slot) for slot in range(60)]).flatten().tolist()  # type: ignore[no-any-return]


def analytic_tasks() -> list[Any]:
    suite = load_suite("analytic")
    return [pytest.param(task, id=task.name) for task in (*suite.tasks, *suite.held_out)]


@needs_pictures
@pytest.mark.parametrize("task", analytic_tasks())
def test_analytic(task: Task) -> None:
    pytest.importorskip("sklearn", reason="the digits need scikit-learn")
    pytest.importorskip("PIL")
    check(task)


@needs_pictures
@pytest.mark.parametrize("name", [task.name for task in load_suite("images").tasks])
def test_images(name: str) -> None:
    pytest.importorskip("PIL")
    check(load_suite("images").find(name))


@needs_pictures
@pytest.mark.parametrize("name", [task.name for task in load_suite("images").held_out])
def test_held_out_images(name: str) -> None:
    pytest.importorskip("PIL")
    check(load_suite("images").find(name))


@pytest.mark.parametrize("name", [task.name for task in load_suite("molecules").tasks])
def test_molecules(name: str) -> None:
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    asked, losses = handful(load_suite("molecules").find(name), 3)
    assert len(losses) == len(asked) == 3
    assert any(loss is not None for loss in losses)
    assert all(loss is None or np.isfinite(loss) for loss in losses)


def test_the_suites_are_what_the_tables_say() -> None:
    counts = {name: len(load_suite(name).tasks) for name in SUITES}
    assert counts == {"analytic": 21, "archive": 0, "images": 12, "molecules": 6, "numerical": 0}
    for name in SUITES:
        suite = load_suite(name)
        names = [task.name for task in (*suite.tasks, *suite.held_out)]
        assert len(set(names)) == len(names)
        # whatever is compared has been tuned on the same model
        assert {task.group for task in suite.tasks} == {task.group for task in suite.held_out}
    with pytest.raises(InputError, match="did you mean 'analytic'"):
        load_suite("analitic")
    with pytest.raises(InputError, match="did you mean 'digits-class'"):
        load_suite("analytic").find("digit-class")


def test_losses_by_hand() -> None:
    pictures = np.zeros((2, 2, 2))
    pictures[1] = [[1.0, 0.0], [1.0, 0.0]]
    assert distance_to(np.zeros((2, 2)))(pictures) == pytest.approx([0.0, 0.5**0.5])
    assert asymmetry(pictures) == pytest.approx([0.0, 1.0])
    assert cross_entropy(np.array([1.0, np.exp(-2.0), 0.0])) == pytest.approx([0.0, 2.0, 6 * np.log(10)])
    assert rating(np.array([0.0, 0.05, 0.2, 0.5, 0.95])).tolist() == [-1, -2, -3, -4, -5]
    assert coarse_rating(np.array([0.0, 0.6, 3.4, 20.0])).tolist() == [-9, -8, -6, -1]


def test_distances_by_hand() -> None:
    random = torch.randn(400, 50, generator=torch.Generator().manual_seed(0)).double()
    assert spread(random) == pytest.approx(1.0, abs=0.02)
    assert spread(random[:1]) is None
    assert nearest(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.0]])).tolist() == [
        pytest.approx((25 / 2) ** 0.5)
    ]


def test_what_is_blurred_noisy_or_turned_grey_is_less_natural() -> None:
    random = np.random.default_rng(0)
    squares = np.kron(random.random((600, 7, 7)) > 0.5, np.ones((4, 4))) * random.uniform(0.5, 1, (600, 1, 1))
    real = np.clip(squares + 0.02 * random.standard_normal(squares.shape), 0, 1)
    fitted = Naturalness.fit(real[:500])
    plain = fitted.distance(real[500:])
    assert 0.5 < plain.mean() < 2
    noisy = np.clip(real[500:] + 0.2 * random.standard_normal((100, 28, 28)), 0, 1)
    blurred = (
        real[500:] + np.roll(real[500:], 1, 1) + np.roll(real[500:], 1, 2) + np.roll(real[500:], (1, 1), (1, 2))
    ) / 4
    for spoilt in (noisy, blurred, np.full((2, 28, 28), 0.5)):
        assert fitted.distance(spoilt).mean() > 2 * plain.mean()


def test_molecules_without_any_valid_one() -> None:
    measured = measure_molecules()([], [])
    assert measured.quality["valid"] == 0
