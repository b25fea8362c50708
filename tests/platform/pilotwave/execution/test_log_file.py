"""A log file is bounded, survives kills in the middle of a line, and is never waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilotwave.execution import log_file
from pilotwave.execution.log_file import LogFile, older_file


def numbers_in(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def test_full_files_are_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "campaign.jsonl"
    file = LogFile(path, largest_bytes=100, kept=3)
    for number in range(40):
        file.write({"number": number}, now=True)
    file.close()
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "campaign.1.jsonl",
        "campaign.2.jsonl",
        "campaign.jsonl",
    ]
    kept = [number for name in (older_file(path, 2), older_file(path, 1), path) for number in numbers_in(name)]
    assert kept == list(range(kept[0], 40))
    assert all(item.stat().st_size <= 100 for item in tmp_path.iterdir())


def test_a_line_that_a_kill_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "campaign.jsonl"
    path.write_text('{"number": 0}\n{"numb')
    file = LogFile(path)
    file.write({"number": 1})
    file.close()
    assert path.read_text() == '{"number": 0}\n{"numb\n{"number": 1}\n'


def test_lines_wait_for_a_second_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(log_file.time, "monotonic", lambda: now)
    path = tmp_path / "campaign.jsonl"
    file = LogFile(path)
    file.write({"number": 0})
    file.flush_if_due()
    assert path.read_text() == ""
    now = 101.0
    file.flush_if_due()
    assert numbers_in(path) == [0]
    file.write({"number": 1}, now=True)
    assert numbers_in(path) == [0, 1]
    file.close()
    file.close()


def test_numbers_that_json_does_not_know_become_words(tmp_path: Path) -> None:
    path = tmp_path / "campaign.jsonl"
    file = LogFile(path)
    file.write({"cost": float("inf"), "value": float("nan"), "seconds": 1.5, "message": "Å"})
    file.close()
    assert json.loads(path.read_text()) == {"cost": "inf", "value": "nan", "seconds": 1.5, "message": "Å"}


def test_what_was_handed_over_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "campaign.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path; from pilotwave.execution.log_file import LogFile; "
        "file = LogFile(Path(sys.argv[1])); file.write({'number': 0}); file.flush(); file.write({'number': 1}); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=os.environ, check=False)
    assert done.returncode == -9
    assert numbers_in(path) == [0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "campaign.jsonl"
    path.symlink_to("/dev/full")
    file = LogFile(path)
    with pytest.raises(OSError, match="No space left"):
        file.write({"number": 0}, now=True)
