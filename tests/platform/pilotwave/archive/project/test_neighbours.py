"""Neighbours among the latents of a backbone: exact distances, up to date, built anew when the index is gone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pilotwave.archive.project import AnswerRecord, ArchiveError, ProjectArchive
from pilotwave.testing.answer_records import answer_record

RECORDS = [answer_record(number) for number in range(300)]
OTHERS = [answer_record(number, run_id="other", backbone="backbone-b", latent_shape=(5,)) for number in range(20)]
QUERIES = np.random.default_rng(1).standard_normal((7, 2, 8)).astype(np.float32)


def nearest(records: list[AnswerRecord], queries: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
    latents = np.stack([record.latent.reshape(-1) for record in records]).astype(np.float64)  # type: ignore[union-attr]
    distances = np.linalg.norm(queries.reshape(len(queries), 1, -1).astype(np.float64) - latents, axis=-1)
    order = np.argsort(distances, axis=1)[:, :k]
    names = [[records[place].record_id for place in row] for row in order]
    return np.take_along_axis(distances, order, 1), names


def agree(archive: ProjectArchive, records: list[AnswerRecord], k: int = 10) -> None:
    distances, names = archive.neighbours("backbone-a", QUERIES, k)
    right, right_names = nearest(records, QUERIES, k)
    assert distances.dtype == np.float64
    assert np.allclose(distances, right, rtol=0, atol=1e-6)
    assert names == right_names


def test_neighbours_follow_what_is_added_compacted_and_removed(tmp_path: Path) -> None:
    with ProjectArchive.create(tmp_path / "archive") as archive:
        archive.append([*RECORDS[:100], *OTHERS])
        agree(archive, RECORDS[:100])
        archive.compact()
        agree(archive, RECORDS[:100])
        archive.append(RECORDS[100:120])
        agree(archive, RECORDS[:120])
        archive.remove([record.record_id for record in RECORDS[10:50]], reason="test")
        agree(archive, RECORDS[:10] + RECORDS[50:120])
    with ProjectArchive.open(tmp_path / "archive", read_only=True) as archive:
        agree(archive, RECORDS[:10] + RECORDS[50:120])
        assert archive.stats()["indexes"] == 1


def test_a_large_archive_proposes_by_codes_and_ranks_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotwave.archive.project.neighbours.CANDIDATES", 40)
    with ProjectArchive.create(tmp_path / "archive") as archive:
        archive.append(RECORDS)
        distances, names = archive.neighbours("backbone-a", QUERIES, 4)
        right, right_names = nearest(RECORDS, QUERIES, 4)
        assert np.allclose(distances, right, rtol=0, atol=1e-6)
        assert names == right_names
        own, ids = archive.neighbours("backbone-a", np.stack([record.latent for record in RECORDS[:9]]), 1)  # type: ignore[arg-type]
        assert [row[0] for row in ids] == [record.record_id for record in RECORDS[:9]]
        assert (own == 0).all()


def test_a_saved_index_is_used_and_a_lost_one_is_built_anew(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with ProjectArchive.create(path) as archive:
        archive.append(RECORDS[:40])
        agree(archive, RECORDS[:40])
    saved = list((path / "index").iterdir())
    assert len(saved) == 1
    with ProjectArchive.open(path) as archive:
        agree(archive, RECORDS[:40])
    assert list((path / "index").iterdir()) == saved  # nothing new, nothing written
    shutil.rmtree(saved[0])
    with ProjectArchive.open(path) as archive:
        agree(archive, RECORDS[:40])
        archive.append(RECORDS[40:45])
        agree(archive, RECORDS[:45])
    with ProjectArchive.open(path, read_only=True) as archive:
        assert archive.verify() == []
        agree(archive, RECORDS[:45])


def test_a_reader_finds_what_its_owner_has_just_added(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with ProjectArchive.create(path) as owner, ProjectArchive.open(path, read_only=True) as reader:
        for start in range(0, 60, 20):
            owner.append(RECORDS[start : start + 20])
            agree(reader, RECORDS[: start + 20])
        owner.remove([RECORDS[0].record_id], reason="test")
        agree(reader, RECORDS[1:60])


def test_backbones_and_sizes_are_not_mixed(tmp_path: Path) -> None:
    with ProjectArchive.create(tmp_path / "archive") as archive:
        archive.append([*RECORDS[:5], *OTHERS])
        _, names = archive.neighbours("backbone-b", torch.zeros(2, 5), 50)
        assert sorted(names[0]) == sorted(record.record_id for record in OTHERS)
        with pytest.raises(ArchiveError, match="expected latents of 5 numbers for backbone backbone-b, got 6"):
            archive.neighbours("backbone-b", torch.zeros(2, 6), 1)
        with pytest.raises(ArchiveError, match="k >= 1"):
            archive.neighbours("backbone-b", torch.zeros(2, 5), 0)
        distances, names = archive.neighbours("backbone-c", torch.zeros(2, 5), 3)
        assert distances.shape == (2, 0)
        assert names == [[], []]


def test_latents_that_cannot_be_compared_are_nobodys_neighbours(tmp_path: Path) -> None:
    odd = [
        replace(RECORDS[0], latent=np.full((2, 8), np.nan, np.float32)),
        replace(RECORDS[1], latent=np.full((2, 8), 1e30, np.float32)),
        replace(RECORDS[2], latent=None),
    ]
    with ProjectArchive.create(tmp_path / "archive") as archive:
        archive.append([*odd, *RECORDS[3:9]])
        agree(archive, RECORDS[3:9], 6)
        assert archive.neighbours("backbone-a", QUERIES, 50)[0].shape == (7, 6)
        archive.remove([odd[0].record_id], reason="test")
        agree(archive, RECORDS[3:9], 6)
