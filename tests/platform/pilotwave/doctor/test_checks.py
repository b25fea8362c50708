from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pilotwave.doctor import checks as all_checks
from pilotwave.doctor.check import run_child
from pilotwave.doctor.checks import checks, gpu, local_ray, model, xtb
from pilotwave.doctor.machine import clock, disk_space, memory_and_cores, shared_memory, write_access
from pilotwave.doctor.packages import CORE, Requirement, package_checks, requirements


def test_quick_checks_say_what_is_here() -> None:
    named: list[str] = []
    found = {check.name: check for check in checks(quick=True, say=named.append)}
    assert {"Python", "packages", "plug-ins: oracle", "disk space", "working directory", "clock"} <= set(found)
    assert found["Python"].status == "ok"
    assert "torch" in found["packages"].found
    assert "Ray" not in found
    assert named[0] == "Python"
    for check in found.values():
        assert (check.remedy == "") == (check.status == "ok")
        assert "\n" not in check.found + check.remedy


def test_the_gpu_or_its_absence_is_said() -> None:
    import torch

    check = gpu()
    assert check.status == "ok"
    assert ("GiB" in check.found) == torch.cuda.is_available()


def test_xtb_answers_the_known_question() -> None:
    check = xtb()
    assert check.status == "ok", check.found
    assert "as it should" in check.found


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_cluster_really_starts() -> None:
    check = local_ray()
    assert check.status == "ok", check.found
    assert "works" in check.found


def test_a_model_without_weights_is_missing_with_a_remedy() -> None:
    check = model("no-such-model", "missing")
    assert check.status == "missing"
    assert "unknown kind" in check.found
    assert "pilotwave train" in check.remedy


def test_a_child_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(grandchild.pid))\n"
        "time.sleep(600)"
    )
    result = run_child(code, seconds=5)
    assert not result.ok
    assert "no answer within 5 s" in result.line
    assert _is_gone(int((tmp_path / "pid").read_text()))


def test_what_a_child_says() -> None:
    assert run_child("print('first'); print('found it')", seconds=60).line == "found it"
    failed = run_child("import json.decoder; raise json.decoder.JSONDecodeError('bad', '', 0)", seconds=60)
    assert (failed.ok, failed.line) == (False, "JSONDecodeError: bad: line 1 column 1 (char 0)")
    crashed = run_child("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", seconds=60)
    assert (crashed.ok, crashed.line) == (False, "the process was killed by SIGSEGV")
    assert run_child("import os; os._exit(3)", seconds=60).line == "exit code 3"
    assert run_child("import os; print(os.environ['WORD'])", seconds=60, environment={"WORD": "x"}).line == "x"


def test_our_own_metadata_is_read() -> None:
    found = requirements()
    assert Requirement("torch", "2.9", CORE) in found
    assert any(item.name == "ray" and item.extra == "ray" for item in found)
    assert {check.name for check in package_checks()} >= {"packages", "packages: ray", "packages: molecules"}


@pytest.fixture
def fake_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution that needs an absent package, a future version, and something of Python 3.4."""
    info = tmp_path / "wanting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wanting\nVersion: 1.0\nProvides-Extra: ray\nProvides-Extra: docking\n"
        "Requires-Dist: numpy>=1.0\nRequires-Dist: no-such-thing-at-all\n"
        "Requires-Dist: numpy[x]>=999.1; extra == 'ray'\n"
        "Requires-Dist: also-absent; (python_version < '3.4') and extra == 'ray'\n"
        "Requires-Dist: no-dock; extra == 'docking'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("fake_distribution")
def test_missing_and_old_packages_are_told_apart() -> None:
    found = {check.name: check for check in package_checks("wanting")}
    assert found["packages"].status == "missing"
    assert "no no-such-thing-at-all" in found["packages"].found
    assert "numpy" in found["packages"].found
    assert "numpy must be 999.1 or newer" in found["packages: ray"].found
    assert found["packages: ray"].remedy == "pip install --upgrade 'pilotwave[ray]'"
    assert "also-absent" not in found["packages: ray"].found
    assert found["packages: docking"].status == "warning"


def test_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cores" in memory_and_cores().found
    assert shared_memory(tmp_path / "none").status == "ok"
    assert disk_space(tmp_path).status in ("ok", "warning")
    assert clock(tmp_path).status == "ok"
    assert write_access("here", tmp_path, "").status == "ok"
    assert list(tmp_path.iterdir()) == []
    refused = write_access("there", tmp_path / "not there", "go elsewhere")
    assert (refused.status, refused.remedy) == ("missing", "go elsewhere")

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert disk_space(tmp_path).status == "missing"
    assert shared_memory(tmp_path).status == "warning"


def test_a_clock_that_differs_from_the_file_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    check = clock(tmp_path)
    assert check.status == "warning"
    assert "ahead" in check.found


def test_a_broken_plug_in_of_ours_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, distribution

    for owner, status in (("pilotwave", "missing"), ("numpy", "warning")):
        point = EntryPoint("broken", "pilotwave.no_such_module:Config", "pilotwave.oracles")
        point = point._for(distribution(owner))  # type: ignore[attr-defined]
        monkeypatch.setattr(all_checks.registry, "choices", lambda section, p=point: {"broken": p})
        all_checks.registry.load.cache_clear()
        check = all_checks._plugins_of("oracle")
        assert check.status == status
        assert "no_such_module" in check.found
    all_checks.registry.load.cache_clear()


def _is_gone(pid: int) -> bool:
    for _ in range(500):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False
