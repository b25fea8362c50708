"""A flipped bit anywhere is named by verify, and never passes for an answer."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave.archive.project import ArchiveError, DamagedArchiveError, ProjectArchive
from pilotwave.archive.project.promises import Promise
from pilotwave.testing.answer_records import answer_record

RECORDS = [answer_record(number) for number in range(50)]
ZERO = np.zeros((1, 2, 8), np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with every kind of file."""
    path = tmp_path_factory.mktemp("whole") / "archive"
    with ProjectArchive.create(path) as archive:
        archive.append([*RECORDS[:30], answer_record(99)])
        archive.compact()
        archive.remove([answer_record(99).record_id], reason="test")
        archive.append(RECORDS[30:40])
        archive.append(RECORDS[40:])
        archive.neighbours("backbone-a", ZERO, 3)
    return path


def uses(archive: ProjectArchive) -> list[Callable[[], Any]]:
    """Everything that reads, each with a result that can be compared."""
    ids = [record.record_id for record in RECORDS]
    return [
        lambda: len(archive),
        lambda: archive.digest(),
        lambda: archive.table().to_pylist(),
        lambda: archive.table("value > 0", ["record_id", "noise"]).to_pylist(),
        lambda: [repr(record) for record in archive.records(ids)],
        lambda: [record.record_id for record in archive.lookup(RECORDS[3].key())],
        lambda: [name in archive for name in [*ids, "nobody"]],
        lambda: archive.neighbours("backbone-a", ZERO, 50)[1],
    ]


def outcome(use: Callable[[], Any]) -> Any:
    """Returns what came, or the refusal."""
    try:
        return use()
    except (DamagedArchiveError, ArchiveError) as error:
        return error


def flip(path: Path, choice: random.Random, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(bits):
        data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
    path.write_bytes(data)


FILES = [
    *("manifest.json", "segments/*.seg", "receipts/*.json", "index/*/*"),
    *(f"parts/*.{kind}" for kind in ("parquet", "latents", "noise", "keys", "sums")),
]


@pytest.mark.parametrize("pattern", FILES)
def test_a_flipped_bit_is_named_and_never_used(whole: Path, tmp_path: Path, pattern: str) -> None:
    with ProjectArchive.open(whole, read_only=True) as archive:
        expected = [use() for use in uses(archive)]
    choice = random.Random(pattern)
    for number in range(6):
        path = tmp_path / str(number)
        shutil.copytree(whole, path)
        hit = choice.choice(sorted(path.glob(pattern)))
        flip(hit, choice)
        archive = outcome(lambda path=path: ProjectArchive.open(path, read_only=True))  # type: ignore[misc]
        if not isinstance(archive, ProjectArchive):
            assert pattern == "manifest.json"
            assert "manifest" in str(archive)
            continue
        with archive:
            said = [outcome(use) for use in uses(archive)]
            errors = [str(item) for item in said if isinstance(item, Exception)]
            assert all(isinstance(now, Exception) or now == then for now, then in zip(said, expected, strict=True))
            assert all(hit.name in error and "\n" not in error for error in errors)
            assert errors or not pattern.endswith(("keys", "sums", "parquet", "latents", "noise", "seg"))
            found = archive.verify()
            assert found
            assert all((path / item.file) in (hit, hit.parent) for item in found)


def test_all_files_are_covered(whole: Path) -> None:
    covered = {path for pattern in FILES for path in whole.glob(pattern)}
    assert covered == {path for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("pattern", [name for name in FILES if name.startswith(("segments", "parts"))])
def test_missing_and_shortened_files_are_named(whole: Path, tmp_path: Path, pattern: str) -> None:
    for number in range(2):
        path = tmp_path / str(number)
        shutil.copytree(whole, path)
        hit = next(path.glob(pattern))
        if number == 0:
            hit.unlink()
        elif hit.suffix == ".seg":
            continue  # an end that is cut off cannot be told from one that was never written
        else:
            os.truncate(hit, hit.stat().st_size - 1)
        with ProjectArchive.open(path, read_only=True) as archive:
            assert hit.name in str(archive.verify()[0])
            for refuse in (lambda: len(archive), archive.stats, lambda: "nobody" in archive):
                with pytest.raises(DamagedArchiveError, match=hit.name):
                    refuse()


def test_a_shortened_segment_is_named_once_it_is_sealed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archive"
    shutil.copytree(whole, path)
    monkeypatch.setattr("pilotwave.archive.project.segments.SEGMENT_BYTES", 1)
    with ProjectArchive.open(path) as archive:
        archive.append([answer_record(60)])
    first = sorted((path / "segments").iterdir())[0]
    os.truncate(first, first.stat().st_size - 3)
    with ProjectArchive.open(path) as archive, pytest.raises(DamagedArchiveError, match=first.name):
        len(archive)


def test_answers_are_still_written_to_a_damaged_archive(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    shutil.copytree(whole, path)
    flip(next(path.glob("parts/*.parquet")), random.Random(1))
    segment = next(path.glob("segments/*.seg"))
    data = bytearray(segment.read_bytes())
    data[3] ^= 4  # the header of the first frame
    segment.write_bytes(data)
    with ProjectArchive.open(path) as archive:
        assert archive.append([answer_record(70)]) == [answer_record(70).record_id]
        assert archive.get(answer_record(70).record_id).value == answer_record(70).value
        for refuse in (archive.compact, lambda: archive.remove([RECORDS[45].record_id], reason="test")):
            with pytest.raises(DamagedArchiveError, match="--drop-damaged"):
                refuse()
        archive.compact(drop_damaged=True)
        assert archive.verify() == []
        left = set(archive.table(columns=["record_id"]).column(0).to_pylist())
        assert left == {record.record_id for record in (*RECORDS[40:], answer_record(70))}
        archive.append(RECORDS)
        assert len(archive) == 51


@pytest.mark.parametrize("pattern", ["parts/*.latents", "parts/*.keys", "parts/*.sums", "segments/*.seg"])
def test_what_can_be_read_is_kept_when_damage_is_dropped(whole: Path, tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "archive"
    shutil.copytree(whole, path)
    flip(next(path.glob(pattern)), random.Random(2))
    with ProjectArchive.open(path) as archive:
        archive.compact(drop_damaged=True)
        assert archive.verify() == []
        # Blocks of 64 KiB span the small part; one frame of two is lost; digests are made anew.
        expected = {".latents": 20, ".keys": 50, ".sums": 20, ".seg": 40}[Path(pattern).suffix]
        assert len(archive) == expected
        distances, _ = archive.neighbours("backbone-a", ZERO, 50)
        assert distances.shape == (1, expected)


def test_a_damaged_promise_is_named_and_blocks_nothing_else(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    shutil.copytree(whole, path)
    promise = Promise.make(path, [RECORDS[0].record_id], "test", 1, "").path(path)
    flip(promise, random.Random(3))
    with ProjectArchive.open(path) as archive:
        assert [item.file for item in archive.verify()] == [f"journal/{promise.name}"]
        assert len(archive) == 50


def test_a_damaged_index_is_built_anew(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    shutil.copytree(whole, path)
    flip(next(path.glob("index/*/*")), random.Random(4))
    with ProjectArchive.open(path) as archive:
        assert archive.verify()
        assert len(archive.neighbours("backbone-a", ZERO, 50)[1][0]) == 50
    with ProjectArchive.open(path, read_only=True) as archive:
        assert archive.verify() == []
