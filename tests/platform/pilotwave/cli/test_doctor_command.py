from __future__ import annotations

import json

import pytest

from pilotwave.cli import run
from pilotwave.doctor import checks as all_checks
from pilotwave.doctor.check import Check


def test_doctor_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--quick", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert code == (0 if facts["ok"] else 2)
    assert facts["ok"] == all(check["status"] != "missing" for check in facts["checks"])
    assert {"name", "status", "found", "remedy"} == set(facts["checks"][0])


def test_doctor_says_how_to_mend(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing = Check("packages: ray", "missing", "no ray", "pip install 'pilotwave[ray]'")
    monkeypatch.setattr(all_checks, "package_checks", lambda: [missing])
    assert run(["doctor", "--quick"]) == 2
    shown = capsys.readouterr().out
    assert "pip install 'pilotwave[ray]'" in shown
    assert "something that a campaign needs is missing" in shown
