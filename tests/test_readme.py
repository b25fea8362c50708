"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pilotwave.config.loading import check_campaign
from pilotwave.tuning.study import Study

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    values = [float(value) for _, value in shown[-3:]]
    assert values == sorted(values, reverse=True)
    assert (tmp_path / "runs" / "campaign" / "ledger.sqlite").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_file_is_a_valid_campaign_or_study(path: Path) -> None:
    fields = yaml.safe_load(path.read_text())
    if "search" in fields:
        Study.from_yaml(path).check()
    else:
        check_campaign(fields, source=path.name)


def test_what_the_readme_points_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
