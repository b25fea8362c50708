"""The benchmark of the models: what it keeps, what it measures, and that the shipped weights are as recorded."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit", reason="the molecule models need rdkit")

from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolTransforms

from pilotwave.backbones.image.backbone import ImageBackbone, ImageBackboneConfig
from pilotwave.backbones.image.judge import read_judge
from pilotwave.backbones.image.quality import draw_in_turns
from pilotwave.backbones.molecule import qm9, quality
from pilotwave.backbones.molecule.distributions import statistics

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

draws, model_plots, models, molecule_models, relaxations = (
    importlib.import_module(name) for name in ("draws", "model_plots", "models", "molecule_models", "relaxations")
)

RECORDED = json.loads(models.RECORDED.read_text())
FRESH_SEED = 77_000_000
SAMPLES = 500
FARTHEST = 3.5
"""Standard deviations: a right model is farther from its record once in two thousand times."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def standard_deviations(hits: int, of: int, recorded_hits: int, recorded_of: int) -> float:
    """How far two proportions are apart, in standard deviations of their difference (pooled, one added each)."""
    pooled = (hits + recorded_hits + 1) / (of + recorded_of + 2)
    return (hits / of - recorded_hits / recorded_of) / math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / recorded_of))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kind", ["molecule", *(pytest.param(kind, marks=pytest.mark.slow) for kind in RECORDED if kind == "druglike")]
)
def test_the_shipped_molecule_models_are_as_good_as_recorded(kind: str) -> None:
    recorded = RECORDED[kind]
    backbone = draws.Setting(kind, "builtin", recorded["steps"]).build()
    assert backbone.fingerprint == recorded["fingerprint"], "new weights: run benchmarks/models.py --record"
    sampled = quality.sample_molecules(backbone, range(FRESH_SEED, FRESH_SEED + SAMPLES))
    for name, hits in (("strict", sampled.strict), ("decoded", sampled.decoded)):
        apart = standard_deviations(hits, SAMPLES, recorded[name], recorded["drawn"])
        assert abs(apart) < FARTHEST, (
            f"{name}: {hits} of {SAMPLES}, recorded {recorded[name]} of {recorded['drawn']}"
        )
    assert quality.uniqueness(sampled.smiles) > 0.95


@pytest.mark.timeout(1800)
def test_the_shipped_image_model_is_as_good_as_recorded() -> None:
    recorded = RECORDED["image"]
    backbone = ImageBackboneConfig(kind="image", steps=recorded["steps"]).build("cpu")
    assert isinstance(backbone, ImageBackbone)
    assert backbone.fingerprint == recorded["fingerprint"], "new weights: run benchmarks/models.py --record"
    asked, pixels = draw_in_turns(backbone, SAMPLES, FRESH_SEED)
    hits = int((read_judge()(pixels).labels == asked).sum())
    assert abs(standard_deviations(hits, SAMPLES, recorded["agreeing"], recorded["drawn"])) < FARTHEST


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_benchmark_of_a_molecule_model(tmp_path: Path) -> None:
    if not qm9.cache_path().exists():
        pytest.importorskip("qm9pack", reason="the data is what samples are compared with")
    words = (
        "molecule --samples 24 --samples-other 8 --steps 10 20 --compared 24 --relax 1 --children 2 --processes 2"
    )
    command = [sys.executable, str(BENCHMARKS / "models.py"), *words.split(), "--work", str(tmp_path)]
    before = models.RECORDED.read_bytes()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for text in (
        "| 50 | dpm-solver-sde | float32 | 24 |",
        "| 10 | euler-ancestral |",
        "bfloat16",
        "never trained on",
    ):
        assert text in done.stdout
    for text in ("GFN2-xTB", "target: strictly valid", "noise mixed with 10% new", "| bond length | Wasserstein |"):
        assert text in done.stdout
    assert models.RECORDED.read_bytes() == before  # without --record nothing is recorded


def test_targets_are_met_from_their_side() -> None:
    lines = molecule_models.target_lines({"share": 0.9, "far": -0.1, "gone": 1.0}, {"share": 0.9, "far": 0.11})
    assert [line.rpartition(", ")[2] for line in lines] == ["met", "not met", "not met"]
    assert "at most 0.1: 0.11" in lines[1]
    assert "not measured" in lines[2]


def test_what_was_drawn_is_kept_and_only_the_rest_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "CHUNK", 2)
    setting = draws.Setting("molecule", "builtin", 4)
    first = draws.draw(setting, 5, 10, tmp_path, processes=1)
    files = sorted(tmp_path.rglob("*.json.gz"))
    assert [file.name for file in files] == ["10-2.json.gz", "12-2.json.gz", "14-1.json.gz"]
    assert first.sampled.count == 5
    assert first.cpu_seconds > 0

    files[1].unlink()
    kept = {file: file.stat().st_mtime_ns for file in (files[0], files[2])}
    again = draws.draw(setting, 5, 10, tmp_path, processes=1)
    assert again.sampled == first.sampled
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert draws.draw(setting, 4, 10, tmp_path, processes=1).sampled.count == 4
    assert len(list(tmp_path.rglob("*.json.gz"))) == 3


def test_other_code_names_another_folder_and_comments_do_not() -> None:
    with_text = '"""Old."""\n\ndef f(x):\n    """Says."""\n    return x  # same\n'
    without = "def f(x):\n    return x\n"
    other = "def f(x):\n    return x + 1\n"
    assert draws.code_of(with_text) == draws.code_of(without)
    assert draws.code_of(other) != draws.code_of(without)


def molecule(smiles: str = "CCOC=O") -> Chem.Mol:
    found = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(found, randomSeed=3) == 0
    rdForceFieldHelpers.MMFFOptimizeMolecule(found, maxIters=2000)
    return found


@pytest.mark.parametrize("method", ["gfn2", "mmff"])
def test_a_stretched_bond_relaxes_back_and_the_molecule_stays(method: str, tmp_path: Path) -> None:
    stretched = molecule()
    rdMolTransforms.SetBondLength(stretched.GetConformer(), 0, 1, 1.62)
    [found] = relaxations.relax_all(method, [Chem.MolToMolBlock(stretched)], tmp_path, 1)
    assert found.converged
    assert found.kept
    assert 0.01 < found.rmsd < 0.5
    assert found.energy > 1
    assert found.smiles == "CCOC=O"
    [file] = (tmp_path / "relaxed").iterdir()
    before = file.stat().st_mtime_ns
    assert relaxations.relax_all(method, [Chem.MolToMolBlock(stretched)], tmp_path, 1) == [found]
    assert file.stat().st_mtime_ns == before
    told = relaxations.summary("samples", method, [found], drawn=2)
    if method == "gfn2":
        assert "100.0%" in told[0]
        assert "50.0%" in told[1]
    else:
        assert "converged for 1" in told[0]
        assert not any("keep every bond" in line for line in told), "a force field cannot break one"


def test_a_broken_and_a_formed_bond_are_noticed() -> None:
    whole = molecule()
    numbers = np.array([atom.GetAtomicNum() for atom in whole.GetAtoms()])
    positions = whole.GetConformer().GetPositions()
    assert relaxations.keeps_bonds(whole, numbers, positions)
    broken = positions.copy()
    broken[0] += 3 * (positions[0] - positions[1])
    assert not relaxations.keeps_bonds(whole, numbers, broken)
    formed = positions.copy()
    formed[0] = positions[4] + np.array([0.0, 0.0, 1.3])
    assert not relaxations.keeps_bonds(whole, numbers, formed)


@pytest.mark.parametrize("seed", range(5))
def test_rmsd_ignores_where_a_molecule_is_and_how_it_is_turned(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.standard_normal((7, 3))
    turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    everything = np.ones(7, dtype=bool)
    assert relaxations.rmsd(points, points @ turn + 5, everything) == pytest.approx(0, abs=1e-9)
    assert relaxations.rmsd(points, points * [1, 1, -1], everything) > 0.1  # the other hand is another molecule
    noise = 0.01 * random.standard_normal((7, 3))
    assert 0 < relaxations.rmsd(points, points + noise, everything) < 0.05


def test_distributions_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one, other = (statistics([molecule(smiles)] * 3) for smiles in ("CCOC=O", "CCOC(=O)C"))
    model_plots.draw_distributions(one, other, "samples", "data", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_two_proportions_of_one_model_are_near() -> None:
    assert abs(standard_deviations(450, 500, 900, 1000)) < 1e-9
    assert abs(standard_deviations(400, 500, 900, 1000)) > 4
    assert abs(standard_deviations(500, 500, 1000, 1000)) < 0.1
