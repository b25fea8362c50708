"""The house rules that a machine can hold: imports point one way, and the standard library's platform lives."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "pilotwave": ROOT / "platform" / "pilotwave",
    "pilotwave_oracles": ROOT / "oracles" / "pilotwave_oracles",
    "pilotwave_actors": ROOT / "actors" / "pilotwave_actors",
}
MAY_IMPORT = {
    "pilotwave": {"pilotwave"},
    "pilotwave_oracles": {"pilotwave", "pilotwave_oracles"},
    "pilotwave_actors": {"pilotwave", "pilotwave_actors"},
}
# Within the core, from the top (may import everything below it) to the bottom.
LAYERS = [
    {"cli"},
    {"tuning"},
    {"bench", "campaign", "doctor", "forgetting"},
    {"execution"},
    {"report", "tracking"},
    {"archive", "config"},
    {"algorithms", "backbones"},
    {"surrogates", "training"},
    {"protocols", "storage", "samples", "types", "errors"},
]
# Whom a lower room may ask all the same, and why.
ALLOWED_UPWARDS = {
    ("cli", "testing"),  # `pilotwave oracle test` runs the public contract suite
    ("algorithms", "config"),  # every choice is its own configuration
    ("backbones", "config"),
    ("tracking", "config"),
    ("tracking", "execution"),  # MLflow loads learned guidance through tracking.pyfunc, and what it loads generates
}
ANYWHERE = {"testing"}
# Each heavy library has its rooms; everywhere else it would slow down or bind what must stay light and free.
ROOMS = {
    "ray": ["actors/"],
    "rdkit": ["oracles/", "platform/pilotwave/backbones/molecule/", "platform/pilotwave/report/"],
    "tblite": ["oracles/"],
    "xtb": ["oracles/"],
    "mlflow": ["platform/pilotwave/tracking/"],
    "diffusers": ["platform/pilotwave/backbones/"],
    "peft": ["platform/pilotwave/algorithms/"],
    "cma": ["platform/pilotwave/algorithms/", "platform/pilotwave/bench/"],
    "matplotlib": ["platform/pilotwave/report/"],
    "prometheus_client": ["platform/pilotwave/execution/"],
    "numba": ["platform/pilotwave/archive/usr_lsh/"],
    "duckdb": ["platform/pilotwave/archive/project/"],
    "faiss": ["platform/pilotwave/bench/"],
    "hnswlib": ["platform/pilotwave/bench/"],
}


def imports(path: Path, *, at_module_level: bool = False) -> list[str]:
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for item in ast.walk(tree)
        if isinstance(item, ast.If) and "TYPE_CHECKING" in ast.unparse(item.test)
        for node in ast.walk(item)
    }
    nodes = tree.body if at_module_level else list(ast.walk(tree))
    found = []
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
    return found


def sources(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_depend_downwards_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if name.split(".")[0] in PACKAGES and name.split(".")[0] not in MAY_IMPORT[package]
    ]
    assert not wrong


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGES["pilotwave"]).parts[0].removesuffix(".py")


def level_of(room: str) -> int:
    found = [index for index, layer in enumerate(LAYERS) if room in layer]
    assert found, f"the room {room} has no place in LAYERS yet"
    return found[0]


def test_rooms_of_the_core_depend_downwards_only() -> None:
    wrong = []
    for path in sources("pilotwave"):
        room = room_of(path)
        if room == "__init__" or room in ANYWHERE:
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "pilotwave" or len(parts) < 2 or parts[1] == room:
                continue
            upwards = parts[1] in ANYWHERE or level_of(parts[1]) < level_of(room)
            if upwards and (room, parts[1]) not in ALLOWED_UPWARDS:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


@pytest.mark.parametrize("library", ROOMS)
def test_heavy_libraries_stay_in_their_rooms(library: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if any(name.split(".")[0] == library for name in imports(path))
        and not any(str(path.relative_to(ROOT)).startswith(room) for room in ROOMS[library])
    ]
    may_look_at_everything = ("platform/pilotwave/doctor/", "platform/pilotwave/testing/")
    assert not [path for path in wrong if not path.startswith(may_look_at_everything)]


def test_no_init_file_shadows_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_standard_library_platform_imports_under_pytest() -> None:
    import platform

    assert platform.python_version()
    assert not str(platform.__file__).startswith(str(ROOT))


def test_the_standard_library_platform_imports_in_the_repository_root() -> None:
    code = "import platform; print(platform.python_version()); import torch"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == sys.version.split()[0]


def test_importing_pilotwave_and_reading_the_schema_is_light() -> None:
    code = (
        "import sys, pilotwave; from pilotwave.config.campaign import campaign_schema; campaign_schema(); "
        "heavy = {'ray', 'rdkit', 'mlflow', 'diffusers', 'tblite', 'matplotlib', 'scipy', 'numba', 'pyarrow'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_are_one_idea_each() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for package in PACKAGES
        for path in sources(package)
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
