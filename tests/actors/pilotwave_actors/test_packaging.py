"""Which of the user's files travel to a cluster, what they are called there, and how large they may be."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from pilotwave.config.loading import check_campaign
from pilotwave.errors import ConfigError, InputError
from pilotwave_actors.packaging import LARGEST_BYTES, Plugins


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A file, a package, and a folder of both."""
    (tmp_path / "alone.py").write_text("def score(sample): return 1.0")
    for name in ("package", "package/inner", "folder", "folder/nested", "folder/data", "package/__pycache__"):
        (tmp_path / name).mkdir()
    for name in ("package/__init__.py", "package/inner/__init__.py", "folder/nested/__init__.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "package/inner/oracle.py").write_text("def score(sample): return 2.0")
    (tmp_path / "package/__pycache__/inner.pyc").write_bytes(b"x" * 100)
    (tmp_path / "folder/first.py").write_text("def score(sample): return 3.0")
    (tmp_path / "folder/data/table.csv").write_text("1,2")
    return tmp_path


def test_files_packages_and_folders_of_them(code: Path) -> None:
    plugins = Plugins.of([code / "alone.py", code / "package", code / "folder"])
    assert plugins.names == ["alone", "package", "first", "nested"]
    assert plugins.name_of(code / "package/inner/oracle.py") == "package.inner.oracle"
    assert plugins.name_of(code / "folder/first.py") == "first"
    assert plugins.name_of(code / "folder/data/table.csv") is None
    assert plugins.runtime_env()["py_modules"] == [str(module) for module in plugins.modules]
    assert Plugins.of([code / "alone.py", code / "alone.py"]).names == ["alone"]
    assert Plugins().runtime_env() == {}


def test_copied_they_import_by_their_names(code: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    staged = tmp_path_factory.mktemp("staged")
    plugins = Plugins.of([code / "alone.py", code / "package", code / "folder"])
    plugins.copy_to(staged)
    assert not list(staged.rglob("*.pyc"))
    sys.path.insert(0, str(staged))
    try:
        for name in [*plugins.names, "package.inner.oracle"]:
            module = importlib.import_module(name)
            assert str(module.__file__).startswith(str(staged))
    finally:
        sys.path.remove(str(staged))
        for name in [*plugins.names, "package.inner", "package.inner.oracle"]:
            sys.modules.pop(name, None)


def campaign(code: Path, function: str, **runtime: object) -> object:
    fields = {
        "name": "plugged",
        "backbone": {"kind": "analytic"},
        "oracle": {"kind": "python", "function": function},
        "objective": {"direction": "minimize"},
        "budget": {"queries": 8, "batch_size": 4},
        "runtime": {"kind": "ray", **runtime},
    }
    return check_campaign(fields, base_dir=code)


def test_a_function_is_named_by_its_module(code: Path) -> None:
    config = campaign(code, "package/inner/oracle.py:score", plugins=["package"])
    plugins = Plugins.of(config.runtime.plugins)  # type: ignore[attr-defined]
    assert plugins.modules == (code / "package",)
    rewritten = plugins.rewritten(config)  # type: ignore[arg-type]
    assert rewritten.oracle.function == "package.inner.oracle:score"  # type: ignore[attr-defined]
    assert rewritten.model_copy(update={"oracle": config.oracle}) == config  # type: ignore[attr-defined]
    alone = campaign(code, "alone.py:score")
    assert Plugins().rewritten(alone) is alone  # type: ignore[arg-type]
    found = Plugins().with_function_of(alone)  # type: ignore[arg-type]
    assert found.names == ["alone"]
    assert found.rewritten(alone).oracle.function == "alone:score"  # type: ignore[attr-defined, arg-type]
    named = campaign(code, "some.module:score")
    assert Plugins().with_function_of(named) == Plugins()  # type: ignore[arg-type]


def test_too_large_is_refused_before_anything_is_sent(code: Path) -> None:
    weights = code / "package" / "weights.bin"
    with weights.open("wb") as file:
        file.truncate(LARGEST_BYTES + 2**20)  # holes: it takes no room on this disk
    with pytest.raises(InputError, match=r"have 101 MiB, and at most 100 MiB.*weights\.bin"):
        Plugins.of([code / "package"])
    (code / "package" / ".git").mkdir()
    weights.rename(code / "package" / ".git" / "weights.bin")
    assert Plugins.of([code / "package"]).names == ["package"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.py", "no such file or folder"),
        ("folder/data", "holds no Python"),
        ("folder/data/table.csv", "expected a Python file"),
        ("two-words.py", "expected a Python file"),
    ],
)
def test_what_is_no_plug_in_is_one_line(code: Path, name: str, words: str) -> None:
    (code / "two-words.py").write_text("")
    with pytest.raises(InputError, match=words):
        Plugins.of([code / name])


def test_two_of_one_name_are_refused(code: Path) -> None:
    (code / "folder" / "alone.py").write_text("")
    with pytest.raises(InputError, match=r"would have one name, 'alone'"):
        Plugins.of([code / "alone.py", code / "folder"])


def test_a_relative_storage_is_refused(code: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime.storage: expected an absolute path"):
        campaign(code, "alone.py:score", storage="runs")
