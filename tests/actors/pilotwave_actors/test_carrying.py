"""Run directories between machines: whole or not at all, through bytes and through the log of a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.errors import InfrastructureError, RunDirectoryError
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.runtime_contract import answers_of, campaign
from pilotwave_actors.carrying import deliver_run, pack_run, unpack_run
from pilotwave_actors.job_entry import main, place_of, unwrap, wrap


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    campaign(FaultyOracleConfig(), {"kind": "inline", "mode": "synchronous"}, queries=16).run(folder)
    (folder / "origin.json").write_text("{}")
    return folder


def test_a_copy_can_be_gone_on_with(run: Path, tmp_path: Path) -> None:
    data = pack_run(run)
    unpack_run(data, tmp_path / "copy")
    names = {item.name for item in (tmp_path / "copy").iterdir()}
    assert names == {"campaign.yaml", "ledger.sqlite", "checkpoints", "results", "receipts", "logs"}
    assert answers_of(tmp_path / "copy") == answers_of(run)
    more = campaign(FaultyOracleConfig(), {"kind": "inline", "mode": "synchronous"}, queries=24)
    assert more.resume(tmp_path / "copy").outcome.spent == 24
    unpack_run(data, tmp_path / "copy")  # over what is there
    assert answers_of(tmp_path / "copy") == answers_of(run)
    assert not [item for item in (tmp_path / "copy").iterdir() if item.name.startswith(".arriving")]


def test_a_run_that_is_there_is_never_replaced_by_delivery(run: Path, tmp_path: Path) -> None:
    data = pack_run(run)
    assert deliver_run(data, tmp_path / "there")
    (tmp_path / "there" / "campaign.yaml").write_text("changed")
    assert not deliver_run(data, tmp_path / "there")
    assert (tmp_path / "there" / "campaign.yaml").read_text() == "changed"


def test_bytes_that_broke_off_leave_what_was_there(run: Path, tmp_path: Path) -> None:
    data = pack_run(run)
    unpack_run(data, tmp_path / "copy")
    for length in range(0, len(data) - 64, max(1, len(data) // 25)):
        with pytest.raises(InfrastructureError, match="no run directory"):
            unpack_run(data[:length], tmp_path / "copy")
        assert answers_of(tmp_path / "copy") == answers_of(run)
    with pytest.raises(RunDirectoryError, match="no run here"):
        pack_run(tmp_path)


LINES = st.text(st.characters(codec="ascii", exclude_characters="-"), max_size=60)


@given(st.binary(max_size=3000), LINES, LINES)
def test_a_packed_run_is_found_between_the_lines_of_a_log(data: bytes, before: str, after: str) -> None:
    assert unwrap(f"{before}\n{wrap(Path('/a/run'), data)}{after}") == ("/a/run", data)


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 10**6))
def test_a_damaged_log_is_said(data: bytes, where: int) -> None:
    text = wrap(Path("/a/run"), data)
    with pytest.raises(InfrastructureError, match="again"):
        unwrap(text[: where % (len(text) - 1)])
    lines = text.split("\n")
    digit = "0" if lines[2][where % 64] != "0" else "1"
    lines[2] = lines[2][: where % 64] + digit + lines[2][where % 64 + 1 :]
    with pytest.raises(InfrastructureError, match="damaged"):
        unwrap("\n".join(lines))


def test_where_a_run_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PILOTWAVE_STORAGE", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert place_of("/shared/run", "/storage") == Path("/shared/run")
    assert place_of("run", "/storage") == Path("/storage/run")
    assert place_of("run", "") == Path("/home/somebody/pilotwave-runs/run")
    monkeypatch.setenv("PILOTWAVE_STORAGE", "/nodes")
    assert place_of("run", "") == Path("/nodes/run")


def test_the_packing_job_prints_a_run_and_refuses_what_is_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(run)]) == 0
    place, data = unwrap(capsys.readouterr().out)
    assert place == str(run)
    unpack_run(data, tmp_path / "home")
    assert answers_of(tmp_path / "home") == answers_of(run)
    assert main(["pack", "nothing", "--storage", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/nothing: no run here\n"


def test_the_campaigns_job_refuses_another_version_and_a_broken_plug_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path / "run"), "--version", "9.9.9"]) == 4
    assert "the machine that submitted has 9.9.9" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "run"), "--import", "a_package_that_nobody_has"]) == 2
    assert "does not import on the cluster: ModuleNotFoundError" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
