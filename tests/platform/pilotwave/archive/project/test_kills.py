"""``kill -9`` at any moment leaves an archive that opens, from before or from after, and promises are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def killed(folder: Path, action: str, kills: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "pilotwave.testing.killed_archive", str(folder), action, str(kills), str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["wrong"] == []
    assert seen["kills"] == kills
    return seen


@pytest.mark.parametrize("action", ["append", "compact", "remove"])
def test_killed_at_a_step(tmp_path: Path, action: str) -> None:
    seen = killed(tmp_path, action, 12, 1)
    assert seen["old"] > 0
    assert seen["new"] > 0


def test_killed_at_a_moment(tmp_path: Path) -> None:
    assert killed(tmp_path, "moments", 16, 2)["done"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("action", ["append", "compact", "remove"])
def test_killed_at_many_steps(tmp_path: Path, action: str) -> None:
    killed(tmp_path, action, 80, 3)


@pytest.mark.slow
def test_killed_at_many_moments(tmp_path: Path) -> None:
    assert killed(tmp_path, "moments", 120, 4)["done"] > 50
