"""An archive of every format that was ever written opens, reads, and goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pilotwave.archive.project import ArchiveError, ProjectArchive, schema
from pilotwave.archive.project.files import to_document
from pilotwave.testing.answer_records import answer_record, same_record

STORED = Path(__file__).with_name("stored")


def stored(format: int, folder: Path) -> Path:
    """Unpacks an archive as a version of pilotwave wrote it: records 0 to 11 compacted, 12 to 15 appended."""
    with zipfile.ZipFile(STORED / f"format-{format}.zip") as packed:
        packed.extractall(folder / "archive")
    return folder / "archive"


def test_there_is_a_stored_archive_of_every_format() -> None:
    assert {path.name for path in STORED.iterdir()} == {f"format-{number}.zip" for number in schema.SCHEMAS}


@pytest.mark.parametrize("format", schema.SCHEMAS)
def test_a_stored_archive_opens_and_goes_on(format: int, tmp_path: Path) -> None:
    path = stored(format, tmp_path)
    expected = [answer_record(number) for number in range(16)]
    with ProjectArchive.open(path, read_only=True) as archive:
        assert archive.verify() == []
        read = archive.records([item.record_id for item in expected])
        assert all(same_record(left, right) for left, right in zip(read, expected, strict=True))
        assert [item.record_id for item in archive.lookup(expected[3].key())] == [expected[3].record_id]
    with ProjectArchive.open(path) as archive:
        archive.append([answer_record(16)])
        archive.compact()
        archive.remove([expected[0].record_id], reason="test")
        assert archive.get(answer_record(16).record_id).value == answer_record(16).value
        assert len(archive) == 16
        assert archive.verify() == []


def test_format_1_is_what_it_was() -> None:
    """A change of these columns is another format: add it, with an upgrade and a stored archive."""
    described = json.dumps([[item.name, str(item.type)] for item in schema.SCHEMAS[1]])
    assert hashlib.sha256(described.encode()).hexdigest()[:16] == "59b08e9861e225e9"


@pytest.fixture
def next_format(monkeypatch: pytest.MonkeyPatch) -> int:
    """A version of the future that has one more column."""
    later = schema.FORMAT + 1
    added = pa.field("project", pa.string())

    def upgrade(table: pa.Table) -> pa.Table:
        return table.append_column(added, pa.array(["from before"] * table.num_rows, pa.string()))

    row = schema._row

    def with_project(*given: Any) -> dict[str, Any]:
        return {**row(*given), "project": "new"}

    monkeypatch.setitem(schema.SCHEMAS, later, schema.SCHEMAS[schema.FORMAT].append(added))
    monkeypatch.setitem(schema.UPGRADES, schema.FORMAT, upgrade)
    monkeypatch.setattr(schema, "_row", with_project)
    monkeypatch.setattr(schema, "FORMAT", later)
    return later


def test_a_later_version_reads_upgrades_and_appends(next_format: int, tmp_path: Path) -> None:
    path = stored(next_format - 1, tmp_path)
    with ProjectArchive.open(path) as archive:
        archive.append([answer_record(16)])
        assert archive.table(columns=["project"]).column(0).to_pylist() == ["from before"] * 16 + ["new"]
        assert archive.table("project = 'new'", ["record_id"]).num_rows == 1
        digest = archive.digest()
        archive.compact()
        assert archive.digest() == digest
        assert archive.table(columns=["project"]).column(0).to_pylist() == ["from before"] * 16 + ["new"]
        assert archive.get(answer_record(3).record_id).value == answer_record(3).value
        assert archive.verify() == []
    manifest = json.loads((path / "manifest.json").read_text())
    assert {entry["format"] for entry in manifest["contents"]} == {next_format}


def test_a_newer_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    path = stored(schema.FORMAT, tmp_path)
    fields = json.loads((path / "manifest.json").read_text())
    fields.pop("checksum")
    newer = [{**entry, "format": 99} for entry in fields["contents"]]
    for wrong in ({**fields, "contents": newer}, {**fields, "format": 99}):
        copy = tmp_path / f"copy-{wrong['format']}"
        shutil.copytree(path, copy)
        (copy / "manifest.json").write_bytes(to_document(wrong))
        for read_only in (False, True):
            with pytest.raises(ArchiveError, match=r"format 1, got 99; use a newer pilotwave") as caught:
                ProjectArchive.open(copy, read_only=read_only)
            assert "\n" not in str(caught.value)
