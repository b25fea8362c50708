"""What is removed from a project archive is in none of its files, and nothing shows that it ever was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pilotwave.archive.project import AnswerRecord, ProjectArchive
from pilotwave.archive.project.promises import Promise, promised
from pilotwave.archive.project.record import id_digest
from pilotwave.errors import StorageError
from pilotwave.testing.answer_records import answer_record

RECORDS = [answer_record(number) for number in range(60)]
GONE = RECORDS[5:50:3]
KEPT = [record for record in RECORDS if record not in GONE]
IDS = [record.record_id for record in GONE]


def traces(record: AnswerRecord) -> list[bytes]:
    """What must not be found: the id, the record's own bytes, and the digest by which it was found."""
    assert record.latent is not None
    assert record.noise is not None
    found = [record.record_id.encode(), id_digest(record.record_id).to_bytes(8, "little")]
    for array in (record.latent, record.noise):
        found += [array.tobytes(), array.tobytes()[:16], array.astype(np.float16).tobytes()[:16]]
    if record.media != "molecule":  # two waters may be the same sample
        found += [record.sample_blob, record.identity.encode(), record.content.encode()]
    return found


def readable_bytes(folder: Path) -> bytes:
    """Returns all files, and Parquet's contents and statistics unpacked as well."""
    data = []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        data.append(path.name.encode() + path.read_bytes())
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            data.append(repr(file.metadata.to_dict()).encode())
            data += [repr(column.to_pylist()).encode() for column in file.read().columns]
            data += [b"".join(blob for blob in file.read().column("sample_blob").to_pylist())]
    return b"\0".join(data)


def places(data: bytes, records: list[AnswerRecord]) -> int:
    return sum(trace in data for record in records for trace in traces(record))


def filled(path: Path, latents: Any = "float32") -> ProjectArchive:
    """A part, several frames and a saved index, all of which hold some of what will go."""
    archive = ProjectArchive.create(path, latents=latents)
    archive.append(RECORDS[:30])
    archive.compact()
    archive.append(RECORDS[30:45])
    archive.neighbours("backbone-a", np.zeros((1, 2, 8), np.float32), 3)
    archive.close()
    archive = ProjectArchive.open(path)
    for record in RECORDS[45:]:
        archive.append([record])
    return archive


@pytest.mark.parametrize("latents", ["float32", "float16"])
def test_no_byte_of_what_was_removed_is_left(tmp_path: Path, latents: str) -> None:
    with filled(tmp_path / "archive", latents) as archive:
        assert places(readable_bytes(archive.path), GONE) > 3 * len(GONE)  # the search does find what is there
        receipt = archive.remove([*IDS, "nobody/knows"], reason="a contributor asked")
        data = readable_bytes(archive.path)
        assert places(data, GONE) == 0
        assert b"nobody/knows" not in data
        assert places(data, KEPT) > 3 * len(KEPT)
        assert (receipt.removed, receipt.missing, receipt.reason) == (len(GONE), 1, "a contributor asked")
        assert receipt.digest_after == archive.digest() != receipt.digest_before
    assert places(readable_bytes(tmp_path / "archive"), GONE) == 0  # closing brings nothing back
    with ProjectArchive.open(tmp_path / "archive") as archive:
        assert len(archive) == len(KEPT)
        assert not any(name in archive for name in IDS)
        _, near = archive.neighbours("backbone-a", np.stack([record.latent for record in GONE]), len(KEPT))  # type: ignore[arg-type]
        assert {name for row in near for name in row} == {record.record_id for record in KEPT}
        assert archive.verify() == []
        assert places(readable_bytes(tmp_path / "archive"), GONE) == 0


def test_the_archive_equals_one_that_never_held_them(tmp_path: Path) -> None:
    with ProjectArchive.create(tmp_path / "never") as never:
        never.append(KEPT)
        clean = never.digest()
    with filled(tmp_path / "archive") as archive:
        archive.remove(IDS, reason="test")
        assert archive.digest() == clean
        archive.compact()
        assert archive.digest() == clean


def test_a_receipt_tells_what_happened_and_nothing_of_what_it_was(tmp_path: Path) -> None:
    with filled(tmp_path / "archive") as archive:
        receipt = archive.remove(IDS, reason="test")
    stored = json.loads((tmp_path / "archive" / "receipts" / f"{receipt.receipt_id}.json").read_text())
    stored.pop("checksum")
    assert stored == vars(receipt)
    assert list((tmp_path / "archive" / "journal").iterdir()) == []


def test_answers_taken_from_a_removed_one_no_longer_name_it(tmp_path: Path) -> None:
    with ProjectArchive.create(tmp_path / "archive") as archive:
        archive.append(RECORDS[:20])
        archive.compact()
        first, second, third = (record.record_id for record in RECORDS[:3])
        archive.append([answer_record(100, reused_from=first), answer_record(101, reused_from=f"{second} {first}")])
        archive.append([answer_record(102, reused_from=third)])
        archive.compact()
        archive.remove([first], reason="test")
        told = [archive.get(answer_record(number).record_id).reused_from for number in (100, 101, 102)]
        assert told == ["removed", f"{second} removed", third]
        assert first.encode() not in readable_bytes(archive.path)
        assert archive.verify() == []


def test_everything_can_be_removed(tmp_path: Path) -> None:
    with filled(tmp_path / "archive") as archive:
        archive.remove([record.record_id for record in RECORDS], reason="test")
        assert len(archive) == 0
        assert places(readable_bytes(archive.path), RECORDS) == 0
        archive.append(RECORDS[:3])
        assert len(archive) == 3
        assert archive.verify() == []


def test_removing_what_is_not_there_changes_no_record(tmp_path: Path) -> None:
    with filled(tmp_path / "archive") as archive:
        digest, files = archive.digest(), {path: path.stat().st_mtime_ns for path in archive.path.glob("parts/*")}
        receipt = archive.remove(["nobody/knows"], reason="test")
        assert (receipt.removed, receipt.missing) == (0, 1)
        assert archive.digest() == digest
        assert {path: path.stat().st_mtime_ns for path in archive.path.glob("parts/*")} == files


def test_a_promise_is_kept_by_the_next_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = filled(tmp_path / "archive")
    before = archive.digest()

    def full(source: object, target: object) -> None:
        if str(target).endswith("manifest.json"):
            raise OSError(28, "No space left on device")
        replace(source, target)  # type: ignore[arg-type]

    replace = os.replace
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        archive.remove(IDS, reason="test")
    monkeypatch.setattr(os, "replace", replace)
    assert archive.digest() == before
    assert len(promised(archive.path)) == 1
    archive.close()
    with ProjectArchive.open(tmp_path / "archive", read_only=True) as reader:
        assert len(reader) == len(RECORDS)
    with ProjectArchive.open(tmp_path / "archive") as owner:
        assert len(owner) == len(KEPT)
        assert promised(owner.path) == []
        assert places(readable_bytes(owner.path), GONE) == 0
        assert owner.stats()["removals"] == 1


def test_a_promise_that_damage_stands_in_the_way_of_is_kept_once_it_is_mended(tmp_path: Path) -> None:
    with filled(tmp_path / "archive") as archive:
        Promise.make(archive.path, IDS, "test", len(IDS), archive.digest())
    latents = next((tmp_path / "archive" / "parts").glob("*.latents"))
    data = bytearray(latents.read_bytes())
    data[7] ^= 1
    latents.write_bytes(data)
    with ProjectArchive.open(tmp_path / "archive") as archive:
        assert len(promised(archive.path)) == 1
        archive.compact(drop_damaged=True)
        assert promised(archive.path) == []
        assert places(readable_bytes(archive.path), GONE) == 0
        assert len(archive) == len([record for record in KEPT if RECORDS.index(record) >= 30])
        assert archive.verify() == []
