"""What MLflow gets from learned guidance: rows of samples with their content, and one line for a wrong request."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pilotwave.algorithms.random_search import RandomSearch
from pilotwave.algorithms.trust_direct import TrustDirectConfig
from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.config.campaign import Generation, Objective
from pilotwave.config.components import BackboneConfig
from pilotwave.errors import CheckpointError, InputError
from pilotwave.execution.guidance_config import GuidanceConfig
from pilotwave.execution.learned_model import LearnedFacts, write_model
from pilotwave.testing.algorithm_contract import observed, setting_of
from pilotwave.tracking.model_flavor import with_model_id
from pilotwave.tracking.pyfunc import GuidanceModel


def learned(config: BackboneConfig, folder: Path) -> Path:
    backbone = config.build("cpu")
    chosen = TrustDirectConfig(kind="trust-direct")
    algorithm = chosen.build(setting_of(backbone, batch_size=4))
    told = observed(backbone, RandomSearch().ask(12), lambda latents: latents.flatten(1).double().sum(dim=1))
    algorithm.tell(told)
    settings = (config, chosen, (), Objective(direction="minimize"), Generation(), 4, 0)
    facts = LearnedFacts("learned", "judge", "eV", backbone.fingerprint, 12, 12)
    write_model(folder, GuidanceConfig("learned", *settings), facts, algorithm.state_dict(), [])
    return folder


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = AnalyticBackboneConfig(kind="analytic", dim=6, steps=3)
    return learned(config, tmp_path_factory.mktemp("arrays") / "model")


def test_mlflow_loads_the_folder_as_it_lies(arrays: Path) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(arrays))
    table = model.predict({"n": 3, "seed": 4})
    assert list(table.columns) == ["request", "index", "label", "predicted", "seed", "array"]
    assert np.array(table["array"].tolist()).shape == (3, 6)
    assert table["predicted"].notna().all()
    direct = GuidanceModel(arrays).predict({"n": 3, "seed": 4})
    assert direct["label"].tolist() == table["label"].tolist()
    fields = yaml.safe_load((arrays / "MLmodel").read_text())
    flavor = fields["flavors"]["python_function"]
    assert flavor["loader_module"] == "pilotwave.tracking.pyfunc"
    assert "python_model" not in flavor  # which would be a pickle
    assert mlflow.pyfunc.get_model_dependencies(str(arrays)).endswith("requirements.txt")
    assert (arrays / "requirements.txt").read_text().splitlines()[0].startswith("pilotwave==")
    named = yaml.safe_load(with_model_id(arrays, "m-1", "r-2"))
    assert (named["model_id"], named["run_id"], named["flavors"]) == ("m-1", "r-2", fields["flavors"])


def test_requests_by_row_table_list_or_parameters(arrays: Path) -> None:
    import pandas  # type: ignore[import-untyped]

    model = GuidanceModel(arrays)
    one, other = model.predict({"n": 2}), model.predict({"n": 2, "seed": 1})
    table = model.predict(pandas.DataFrame({"n": [2, 2], "seed": [0, 1], "constraints": [None, True]}))
    assert table["label"].tolist() == one["label"].tolist() + other["label"].tolist()
    assert table["request"].tolist() == [0, 0, 1, 1]
    assert model.predict([{"n": 2, "seed": 1}])["label"].tolist() == other["label"].tolist()
    assert model.predict(None, params={"n": 2, "seed": 1})["label"].tolist() == other["label"].tolist()
    assert len(model.predict({})) == 16
    assert len(model.predict({"n": np.int64(3)})) == 3


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"n": 0}, "n: expected a whole number, 1 or more, got 0"),
        ({"n": 1.5}, r"n: expected a whole number, 1 or more, got 1\.5"),
        ({"n": "many"}, "n: expected a whole number, 1 or more, got 'many'"),
        ({"seed": -1}, "seed: expected a whole number, 0 or more"),
        ({"count": 3}, "expected n, seed, constraints, conditions, got 'count'"),
        ({"conditions": "{"}, "conditions: expected e.g"),
        ({"conditions": {"classes": ["a"]}}, "has no conditions to choose"),
        (3, "got int"),
    ],
)
def test_a_wrong_request_is_one_line(arrays: Path, request_: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GuidanceModel(arrays).predict(request_)


def test_a_damaged_folder_is_refused_when_it_is_loaded(tmp_path: Path, arrays: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(arrays, folder)
    (folder / "algorithm.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        GuidanceModel(folder)


def test_pictures_come_as_png(tmp_path: Path) -> None:
    from PIL import Image

    from pilotwave.backbones.image.backbone import ImageBackboneConfig

    folder = learned(ImageBackboneConfig(kind="image", steps=2), tmp_path / "model")
    model = GuidanceModel(folder)
    table = model.predict({"n": 2, "conditions": {"classes": ["coat"]}})
    assert [Image.open(io.BytesIO(png)).size for png in table["png"]] == [(28, 28), (28, 28)]
    assert all(label.startswith("coat ") for label in table["label"])
    assert (folder / "requirements.txt").read_text().startswith("pilotwave[images]==")


def test_molecules_come_as_mol_blocks(tmp_path: Path) -> None:
    from rdkit import Chem

    from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig

    folder = learned(MoleculeBackboneConfig(kind="molecule", steps=12), tmp_path / "model")
    table = GuidanceModel(folder).predict({"n": 2})
    assert len(table) == 2
    for block, label in zip(table["mol_block"], table["label"], strict=True):
        molecule = Chem.MolFromMolBlock(block, removeHs=False)
        assert Chem.MolToSmiles(Chem.RemoveHs(molecule), isomericSmiles=False) == label
