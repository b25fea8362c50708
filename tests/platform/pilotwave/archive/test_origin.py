"""The note beside a copy of a run: it leads back, and nobody goes on from the copy by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave.archive.origin import Origin, read_origin, refuse_copy
from pilotwave.errors import RunDirectoryError
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.runtime_contract import campaign, state_of


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_origin(tmp_path) is None
    refuse_copy(tmp_path)
    for origin in (Origin("client", "ray://a:10001", "/s/run"), Origin("job", "http://a:8265", "/s/run", "job-1")):
        origin.write(tmp_path)
        assert read_origin(tmp_path) == origin
        with pytest.raises(RunDirectoryError, match=r"is a copy; the run itself is /s/run at"):
            refuse_copy(tmp_path)
    assert "pilotwave submit" in origin.how_to_go_on(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"way": "client"}', '{"other": 1}'])
def test_a_damaged_note_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "origin.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"origin.json cannot be read"):
        read_origin(tmp_path)


def test_no_runtime_goes_on_from_a_copy(tmp_path: Path) -> None:
    copied = campaign(FaultyOracleConfig(), {"kind": "inline"}, queries=8)
    copied.run(tmp_path / "run")
    Origin("job", "http://a:8265", "/s/run", "job-1").write(tmp_path / "run")
    more = campaign(FaultyOracleConfig(), {"kind": "inline"}, queries=16)
    with pytest.raises(RunDirectoryError, match="go on there with: pilotwave submit"):
        more.resume(tmp_path / "run")
    assert state_of(tmp_path / "run").spent == 8
    (tmp_path / "run" / "origin.json").unlink()
    assert more.resume(tmp_path / "run").outcome.spent == 16
