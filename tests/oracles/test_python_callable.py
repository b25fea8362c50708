"""Functions named in a campaign file: found, imported, asked; and each way of getting it wrong."""

import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, Sample
from pilotwave.testing.oracle_contract import OracleContract, one_of_each_media
from pilotwave_oracles.python_callable import PythonOracleConfig

CONTEXT = QueryContext("q")
SAMPLE = ArraySample(np.array([1.0, 2.0], dtype=np.float32))


class TestPythonContract(OracleContract):
    def config(self) -> PythonOracleConfig:
        return PythonOracleConfig(
            function="pilotwave.testing.faulty_oracles:score",
            accepts=("array",),
            known={"array": [1.0, 2.0], "value": 3.0},  # type: ignore[arg-type]
        )


class TestPythonContractOfAllMedia(OracleContract):
    def config(self) -> PythonOracleConfig:
        return PythonOracleConfig(function="pilotwave.testing.faulty_oracles:score", isolation="thread")

    def samples(self) -> list[Sample]:
        return list(one_of_each_media().values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("SCALE = 10.0\n")
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            from helper import SCALE
            constant = 3

            def size(sample):
                return SCALE * float(sample.array.sum())

            def nothing(sample):
                return None

            def divide(sample):
                return 1 / 0
            """
        )
    )
    return tmp_path


def configured(folder: Path, function: str, **fields: Any) -> PythonOracleConfig:
    return PythonOracleConfig.model_validate({"function": function, **fields}, context={"base_dir": folder})


def test_a_relative_path_is_taken_from_the_campaign_file_and_made_absolute(folder: Path) -> None:
    config = configured(folder, "mine.py:size", unit="m")
    assert config.function == f"{folder / 'mine.py'}:size"
    oracle = config.build()
    assert oracle.evaluate(SAMPLE, CONTEXT).value == 30.0
    assert (oracle.name, oracle.unit) == ("python:size", "m")
    again = PythonOracleConfig.model_validate(config.model_dump())
    assert again == config


def test_without_a_campaign_file_it_is_taken_from_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert PythonOracleConfig(function="./mine.py:size").function == f"{folder / 'mine.py'}:size"


def test_an_edited_file_is_a_new_version_unless_one_is_named(folder: Path, tmp_path_factory: Any) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "mine.py").write_text("def size(sample):\n    return 2.0\n")
    versions = [configured(place, "mine.py:size").build().version for place in (folder, other)]
    assert versions[0] != versions[1]
    assert all(version.startswith("sha256 ") for version in versions)
    assert configured(folder, "mine.py:size", version="7").build().version == "7"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("size", "expected 'package.module:name' or 'path/to/file.py:name', got 'size'"),
        ("mine.py:", "expected 'package.module:name'"),
        ("mine.py:not a name", "expected 'package.module:name'"),
        ("other.py:size", "expected a Python file, found none at .*other.py"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_at_validation(folder: Path, function: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        configured(folder, function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("no.such.module:size", "expected a module 'no.such.module' that can be imported, found none"),
        ("mine.py:sise", "has no 'sise'; it has divide, nothing, size"),
        ("mine.py:constant", "expected a function 'constant' in .*mine.py, got a int"),
        ("broken.py:size", "broken.py could not be imported: SyntaxError"),
        ("needy.py:size", "needy.py could not be imported: ModuleNotFoundError: No module named 'not_installed'"),
        ("json:loads2", "has no 'loads2'; it has JSONDecodeError"),
    ],
)
def test_what_cannot_be_imported_is_said_at_build_in_one_line(folder: Path, function: str, words: str) -> None:
    (folder / "broken.py").write_text("def size(sample:\n")
    (folder / "needy.py").write_text("import not_installed\n")
    with pytest.raises(InputError, match=words) as caught:
        configured(folder, function).build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("mine.py:nothing", "python:nothing must return a finite number or an Answer, got NoneType None"),
        ("mine.py:divide", "python:divide raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_the_function_does_wrong_is_a_failure(folder: Path, function: str, words: str) -> None:
    with pytest.raises(OracleFailure, match=words) as caught:
        configured(folder, function).build().evaluate(SAMPLE, CONTEXT)
    assert caught.value.stage == "callable"


@pytest.mark.parametrize("known", [{}, {"array": [1.0], "mol_block": "x"}, {"array": [1.0], "colour": 3}])
def test_a_known_question_is_one_array_or_one_molecule(known: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PythonOracleConfig(function="json:loads", known=known)  # type: ignore[arg-type]


def test_a_known_molecule_is_asked_as_a_molecule() -> None:
    config = PythonOracleConfig(function="json:loads", known={"mol_block": "x", "value": 1})  # type: ignore[arg-type]
    known = config.build().known_answer()
    assert known is not None
    assert (known.sample.media, known.value) == ("molecule", 1.0)


def test_evaluators_in_threads_may_build_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "slow_to_import.py"
    path.write_text("import time\ntime.sleep(0.2)\n\ndef judge(sample):\n    return 1.0\n")
    config = PythonOracleConfig(kind="python", function=f"{path}:judge")
    with ThreadPoolExecutor(4) as pool:
        oracles = [future.result() for future in [pool.submit(config.build) for _ in range(4)]]
    assert {oracle.name for oracle in oracles} == {"python:judge"}
