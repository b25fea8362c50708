"""More samples from what a run has learned: new, repeatable, better, under any condition; nothing is written."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotwave.algorithms.random_search import RandomSearch
from pilotwave.algorithms.trust_direct import TrustDirectConfig
from pilotwave.archive.ledger import Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.campaign import Campaign, open_guidance, optimize
from pilotwave.config.campaign import Generation, Objective
from pilotwave.config.components import BackboneConfig, ConstraintConfig
from pilotwave.errors import CheckpointError, InputError, RunDirectoryError
from pilotwave.execution.guidance import Guidance
from pilotwave.execution.guidance_config import GuidanceConfig
from pilotwave.execution.learned_model import LearnedFacts, read_model, write_model
from pilotwave.forgetting.byte_search import files_under
from pilotwave.forgetting.promise import promised_file
from pilotwave.protocols import Verdict
from pilotwave.samples import ArraySample, Sample
from pilotwave.testing.algorithm_contract import observed, setting_of
from pilotwave.testing.faulty_oracles import score
from pilotwave.testing.steered_run import SteeredRun, steer

BACKBONE = {"kind": "analytic", "dim": 6, "steps": 3, "components": 8, "rank": 4}
ALGORITHMS: list[dict[str, Any]] = [
    {"kind": "trust-direct"},
    {"kind": "fast-direct", "step_size": 0.5},
    {"kind": "tfg"},
    {"kind": "casbo"},
    {"kind": "cma-es"},
    {"kind": "dno"},
    {"kind": "flow-direct"},
    {"kind": "lidar", "lookahead_samples": 6},
    {"kind": "noise-search"},
    {"kind": "random"},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SteeredRun:
    return steer(tmp_path_factory.mktemp("guidance") / "run", batches=8)


def known(run: SteeredRun) -> set[str]:
    with Ledger.open(run.path / "ledger.sqlite", read_only=True) as ledger:
        return ledger.feasible_identities()


def model_of(run: SteeredRun, folder: Path) -> Path:
    state, facts = (
        run.restored().state_dict(),
        LearnedFacts("contract", "faulty", "", run.backbone.fingerprint, 48, 48),
    )
    write_model(folder, GuidanceConfig.of(run.config), facts, state, known(run))
    return folder


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda item: item["kind"])
def test_samples_are_new_and_the_same_again_from_the_run_and_from_a_folder(
    tmp_path: Path, algorithm: dict[str, Any]
) -> None:
    run = steer(tmp_path / "run", algorithm=algorithm)
    before = {path: path.read_bytes() for path in files_under(run.path)}
    made = open_guidance(run.path).generate(10)
    names = [item.sample.identity() for item in made]
    assert (len(names), len(set(names)), [item.index for item in made]) == (10, 10, list(range(10)))
    assert set(names).isdisjoint(known(run))
    assert {path: path.read_bytes() for path in files_under(run.path)} == before
    guidance = open_guidance(run.path)
    assert [item.sample.identity() for item in guidance.generate(10)] == names
    assert [item.sample.identity() for item in guidance.generate(10)] == names  # and once more from the same one
    assert set(names).isdisjoint(item.sample.identity() for item in guidance.generate(10, seed=1))
    folder = model_of(run, tmp_path / "model")
    shutil.rmtree(run.path)
    again = open_guidance(folder).generate(10)
    assert [item.sample.identity() for item in again] == names
    assert [item.predicted for item in again] == [item.predicted for item in made]
    assert made.guided == (algorithm["kind"] != "random")
    assert (made[0].predicted is not None) == (algorithm["kind"] in ("trust-direct", "fast-direct", "tfg"))


def test_they_are_better_than_unguided_ones_and_the_surrogate_knows(run: SteeredRun) -> None:
    made = open_guidance(run.path).generate(40)
    own = run.backbone.decode(*_unguided(run, 40))
    losses = [score(item.sample) for item in made]
    unguided = [score(sample) for sample in own if isinstance(sample, ArraySample)]
    assert sum(losses) / 40 < sum(unguided) / 40 - 0.3 * torch.tensor(unguided).std()
    predicted = [item.predicted for item in made]
    assert None not in predicted
    pairs = torch.tensor([predicted, losses], dtype=torch.float64)
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.5


def _unguided(run: SteeredRun, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    from pilotwave.backbones.unguided import unguided_draws

    draws = unguided_draws(5, count)
    conditions = run.backbone.draw_conditions(draws)
    return run.backbone.sample(run.backbone.draw_noise(draws), conditions), conditions


def test_values_have_the_sign_of_the_oracle(run: SteeredRun, tmp_path: Path) -> None:
    up = steer(tmp_path / "run", objective={"direction": "maximize"}, batches=8)
    made = open_guidance(up.path).generate(30)
    pairs = torch.tensor([[item.predicted for item in made], [score(item.sample) for item in made]])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.5


def test_a_driver_at_work_is_not_disturbed(run: SteeredRun) -> None:
    directory = RunDirectory(run.path)
    with directory.lock():
        writer = directory.become_writer(1.0)
        try:
            with Ledger.open(run.path / "ledger.sqlite") as ledger:
                count = len(list(ledger.events()))
                assert len(open_guidance(run.path).generate(3)) == 3
                assert len(list(ledger.events())) == count
        finally:
            os.close(writer)


def test_checkpoints_are_not_needed(run: SteeredRun, tmp_path: Path) -> None:
    bare = tmp_path / "run"
    shutil.copytree(run.path, bare)
    shutil.rmtree(bare / "checkpoints")
    wanted = [item.sample.identity() for item in open_guidance(run.path).generate(4)]
    assert [item.sample.identity() for item in open_guidance(bare).generate(4)] == wanted


def test_without_answers_they_are_unguided_and_that_is_said(tmp_path: Path) -> None:
    run = steer(tmp_path / "run", batches=1, judge=lambda sample, number: None)
    made = open_guidance(run.path).generate(3)
    assert not made.guided
    assert made.notes == ("nothing was answered yet, so these samples are unguided",)
    few = steer(tmp_path / "few", batches=1)
    assert open_guidance(few.path).generate(3).notes == (
        "trust-direct does not steer these samples (yet), so they are unguided",
    )


class AboveConfig(ConstraintConfig):
    """Vetoes arrays whose first number is too small."""

    media: ClassVar[frozenset[str]] = frozenset({"array"})
    kind: Literal["above"] = "above"
    limit: float

    def build(self) -> Above:
        return Above(self.limit)


class Above:
    name = "above"
    media = frozenset({"array"})

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def check(self, sample: Sample) -> Verdict:
        first = first_of(sample)
        return Verdict(None if first > self.limit else f"{first:.2f} is too small", {"first": first})


def first_of(sample: Sample) -> float:
    assert isinstance(sample, ArraySample)
    return float(sample.array[0])


def test_vetoed_samples_are_drawn_again(run: SteeredRun) -> None:
    limit = sorted(first_of(item.sample) for item in open_guidance(run.path).generate(12))[5]
    config = dataclasses.replace(GuidanceConfig.of(run.config), constraints=(AboveConfig(limit=limit),))
    guidance = Guidance.open(run.path, config=config)
    made = guidance.generate(12)
    assert len(made) == 12
    assert all(first_of(item.sample) == item.properties["first"] > limit for item in made)
    assert made.left_out["above"] > 0
    assert made.drawn == 12 + sum(made.left_out.values())
    free = guidance.generate(12, constraints=False)
    assert "above" not in free.left_out
    assert not all(first_of(item.sample) > limit for item in free)


def test_a_model_that_makes_nothing_new_ends_and_says_so(run: SteeredRun) -> None:
    config = dataclasses.replace(GuidanceConfig.of(run.config), generation=Generation(redraws=2))
    guidance = Guidance.open(run.path, config=config)
    guidance._known = frozenset(item.sample.identity() for item in guidance.generate(4)) | known(run)
    fewer = guidance.generate(4)
    assert fewer.left_out["repeat"] == 4
    assert len(fewer) == 4

    class Stuck:
        def generate(self, backbone: Any, draws: Any) -> Any:
            batch = (
                RandomSearch().ask(1).plan.generate(backbone, [dataclasses.replace(draws[0], seed=7)] * len(draws))
            )
            return batch

    guidance._plan = Stuck()
    one = guidance.generate(6)
    assert (len(one), one.wanted) == (1, 6)
    assert one.notes[-1].startswith("only 1 of 6 samples are new and valid (")
    guidance._known |= {one[0].sample.identity()}
    assert len(guidance.generate(6)) == 0


def learned(config: BackboneConfig, folder: Path, answers: int, judge: Any) -> Path:
    """A model folder of trust-direct on any model, told of unguided samples."""
    backbone = config.build("cpu")
    algorithm = TrustDirectConfig(kind="trust-direct").build(setting_of(backbone, batch_size=8))
    algorithm.tell(observed(backbone, RandomSearch().ask(answers), judge))
    guidance = GuidanceConfig(
        "learned",
        config,
        TrustDirectConfig(kind="trust-direct"),
        (),
        Objective(direction="minimize"),
        Generation(),
        8,
        0,
    )
    facts = LearnedFacts("learned", "judge", "", backbone.fingerprint, answers, answers)
    write_model(folder, guidance, facts, algorithm.state_dict(), [])
    return folder


def test_classes_that_the_run_never_saw(tmp_path: Path) -> None:
    from pilotwave.backbones.image.backbone import ImageBackboneConfig

    config = ImageBackboneConfig(kind="image", steps=3, classes=("sneaker", "bag"))
    folder = learned(config, tmp_path / "model", 12, lambda latents: latents.flatten(1).double().mean(dim=1))
    made = open_guidance(folder, conditions={"classes": ["coat", 0]}).generate(8)
    assert {item.condition for item in made} == {(4,), (0,)}
    assert {item.sample.class_name for item in made} <= {"coat", "t-shirt"}  # type: ignore[attr-defined]
    assert made.guided
    with pytest.raises(InputError, match="did you mean 'coat'"):
        open_guidance(folder, conditions={"classes": ["coats"]})
    with pytest.raises(InputError, match="condition steps: a model of kind 'image' has the conditions classes"):
        open_guidance(folder, conditions={"steps": 9})


def test_sizes_of_molecules_that_the_run_never_saw(tmp_path: Path) -> None:
    from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig

    config = MoleculeBackboneConfig(kind="molecule", steps=12, atoms=7)
    folder = learned(
        config, tmp_path / "model", 12, lambda latents: latents.flatten(1).double().square().sum(dim=1)
    )
    for atoms in (6, 9):
        made = open_guidance(folder, conditions={"atoms": atoms}).generate(6)
        assert {item.condition for item in made} == {(atoms,)}
        assert len(made) == 6
        assert made.guided


def test_a_model_takes_its_own_weights_along(tmp_path: Path) -> None:
    import numpy as np

    from pilotwave.backbones.analytic import AnalyticBackboneConfig, synthetic_clusters

    np.save(tmp_path / "data.npy", synthetic_clusters(6, 3, 2, 1))
    config = AnalyticBackboneConfig(kind="analytic", data=tmp_path / "data.npy", components=3, rank=2, steps=3)
    folder = learned(config, tmp_path / "model", 12, lambda latents: latents.double().sum(dim=1))
    (tmp_path / "data.npy").unlink()
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder)
    assert len(open_guidance(moved).generate(4)) == 4
    assert str(tmp_path) not in (moved / "campaign.yaml").read_text()


def test_other_weights_than_the_campaigns_are_refused(run: SteeredRun, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run.path, other)
    text = (other / "campaign.yaml").read_text()
    (other / "campaign.yaml").write_text(text.replace("components: 8", "components: 7"))
    with pytest.raises(CheckpointError, match=r"was learned with the model analytic-.*put the former weights back"):
        open_guidance(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("kind: analytic", "kind: analitic"), "did you mean 'analytic'"),
        (lambda text: text.replace("kind: analytic", "kind: given"), "given as a Python object"),
        (lambda text: text.replace("\nseed:", "\nsead:"), "undo "),
        (lambda text: text.replace("batch_size: 6", "batch_size: {}"), "undo "),
        (lambda text: "[1, 2]", "expected a mapping"),
        (lambda text: text.replace("  dim: 6", "  dim: six"), "backbone: Input should be a valid integer"),
    ],
)
def test_a_campaign_file_that_was_changed_is_one_clear_line(
    run: SteeredRun, tmp_path: Path, change: Any, message: str
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run.path, other)
    (other / "campaign.yaml").write_text(change((other / "campaign.yaml").read_text()))
    with pytest.raises(RunDirectoryError, match=message):
        open_guidance(other)


def test_no_run_and_an_unfinished_forgetting_are_one_clear_line(run: SteeredRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "nothing", tmp_path, tmp_path / "file"):
        with pytest.raises(RunDirectoryError, match="no run and no model here"):
            open_guidance(place)
    with pytest.raises(InputError, match="expected 1 or more samples, got 0"):
        open_guidance(run.path).generate(0)
    with pytest.raises(InputError, match="generate\\(\\) needs a run"):
        Campaign(run.config).generate(3)
    from pilotwave.forgetting.forget_run import plan_forgetting
    from pilotwave.forgetting.promise import write_promise
    from pilotwave.forgetting.selection import ForgetRequest

    other = tmp_path / "run"
    shutil.copytree(run.path, other)
    write_promise(other, plan_forgetting(other, ForgetRequest(("p0000-00",))).promise)
    assert promised_file(other).exists()
    with pytest.raises(InputError, match="finish it first with: pilotwave resume"):
        open_guidance(other)


def test_from_python_with_a_function_and_a_model_that_no_file_holds(run: SteeredRun, tmp_path: Path) -> None:
    result = optimize(
        run.backbone, lambda sample: float(sample.array.sum()), queries=16, batch_size=8, run_dir=tmp_path / "r"
    )
    made = result.generate(5, seed=2)
    assert [item.label for item in made] == [item.label for item in result.generate(5, seed=2)]
    assert len({item.sample.identity() for item in made}) == 5
    with pytest.raises(RunDirectoryError, match="given as a Python object"):
        open_guidance(result.run_dir)


def test_no_pickle_is_in_a_model(run: SteeredRun, tmp_path: Path) -> None:
    folder = model_of(run, tmp_path / "model")
    names = sorted(path.name for path in files_under(folder))
    assert names == [
        *("MLmodel", "algorithm.json", "algorithm.safetensors", "campaign.yaml", "conda.yaml", "guidance.json"),
        *("python_env.yaml", "requirements.txt"),
    ]
    assert not [path for path in files_under(folder) if path.read_bytes()[:2] in (b"\x80\x04", b"PK")]
    assert (folder / "requirements.txt").read_text().startswith("pilotwave==")
    assert read_model(folder).facts.answers == 48
    model_of(run, folder)  # and again over itself
    assert not [path for path in tmp_path.iterdir() if path.name != "model"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["algorithm.json", "algorithm.safetensors", "campaign.yaml", "guidance.json"]),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
    cut=st.booleans(),
)
def test_a_damaged_model_is_read_or_refused_in_one_line(
    run: SteeredRun, tmp_path: Path, name: str, place: float, flip: int, cut: bool
) -> None:
    folder = tmp_path / "model"
    if not folder.exists():
        model_of(run, folder)
    content = (folder / name).read_bytes()
    at = math.floor(place * len(content))
    damaged = content[:at] if cut else content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
    (folder / name).write_bytes(damaged)
    try:
        read_model(folder)
    except InputError:
        pass
    finally:
        (folder / name).write_bytes(content)
    assert json.loads((folder / "guidance.json").read_text())["format"] == 1


def test_a_later_format_is_refused(run: SteeredRun, tmp_path: Path) -> None:
    folder = model_of(run, tmp_path / "model")
    text = (folder / "guidance.json").read_text()
    (folder / "guidance.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match="use a newer pilotwave"):
        open_guidance(folder)
