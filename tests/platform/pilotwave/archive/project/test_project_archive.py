"""What is put into a project archive comes out of it, from segments and from parts, found by id and by question."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pilotwave.archive.project import (
    AnswerRecord,
    ArchiveError,
    EvaluationKey,
    ProjectArchive,
    part_writer,
    segments,
)
from pilotwave.errors import StorageError
from pilotwave.testing.answer_records import answer_record, same_record
from pilotwave.types import Failure, Status


@pytest.fixture
def archive(tmp_path: Path) -> Any:
    with ProjectArchive.create(tmp_path / "archive") as opened:
        yield opened


RECORDS = [answer_record(number) for number in range(60)]


@pytest.mark.parametrize("compacted", [False, True])
def test_records_come_back_as_they_were(archive: ProjectArchive, compacted: bool) -> None:
    assert archive.append(RECORDS[:40]) == [record.record_id for record in RECORDS[:40]]
    assert archive.append(RECORDS[30:]) == [record.record_id for record in RECORDS[40:]]
    if compacted:
        archive.compact()
    assert len(archive) == 60
    assert all(same_record(archive.get(record.record_id), record) for record in RECORDS)
    order = [RECORDS[place].record_id for place in (59, 3, 40, 3)]
    assert [record.record_id for record in archive.records(order)] == order
    assert [record.record_id for batch in archive.batches(7) for record in batch] == [
        record.record_id for record in RECORDS
    ]
    assert RECORDS[0].record_id in archive
    assert "test-run/p9999-00" not in archive
    with pytest.raises(KeyError, match="p9999"):
        archive.records([RECORDS[0].record_id, "test-run/p9999-00"])


def test_samples_and_evaluations_are_rebuilt(archive: ProjectArchive) -> None:
    archive.append(RECORDS)
    for record in RECORDS[:8]:
        kept = archive.get(record.record_id)
        sample = kept.sample()
        assert sample is not None
        assert sample.identity() == record.identity
        assert kept.evaluation() == record.evaluation()
        assert kept.key() == record.key()


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
TEXT = st.text(max_size=12)
TIMES = st.integers(0, 2**50).map(lambda number: number / 1e6)
ARRAYS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=st.floats(width=32)
)


@st.composite
def any_record(draw: st.DrawFn) -> AnswerRecord:
    ok = draw(st.booleans())
    return AnswerRecord(
        record_id=draw(st.text(min_size=1, max_size=12)),
        campaign=draw(TEXT),
        run_id=draw(TEXT),
        query_id=draw(TEXT),
        proposal=draw(st.integers(-(2**63), 2**63 - 1)),
        seed=draw(st.integers(0, 2**64 - 1)),
        contributor=draw(TEXT),
        recorded=draw(TIMES),
        backbone=draw(TEXT),
        oracle=draw(TEXT),
        oracle_version=draw(TEXT),
        oracle_parameters=draw(TEXT),
        deterministic=draw(st.booleans()),
        status=Status.OK if ok else draw(st.sampled_from([item for item in Status if item is not Status.OK])),
        value=draw(st.floats(allow_nan=False, allow_infinity=False)) if ok else None,
        condition=tuple(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3))),
        media=draw(st.none() | TEXT),
        identity=draw(TEXT),
        canonical=draw(TEXT),
        content=draw(TEXT),
        sample_fields=draw(st.dictionaries(TEXT, st.integers() | TEXT | st.booleans() | st.none(), max_size=3)),
        sample_blob=draw(st.binary(max_size=40)),
        fidelity=draw(TEXT),
        cost=draw(st.floats(allow_nan=False)),
        attempt=draw(st.integers(1, 99)),
        worker=draw(TEXT),
        failure=draw(st.none() | st.builds(Failure, TEXT, TEXT, st.booleans())),
        started=draw(st.none() | TIMES),
        finished=draw(st.none() | TIMES),
        properties=draw(st.dictionaries(TEXT, NUMBERS, max_size=3)),
        constraints=draw(st.dictionaries(TEXT, NUMBERS, max_size=3)),
        reused_from=draw(st.none() | TEXT),
        latent=draw(st.none() | ARRAYS),
        noise=draw(st.none() | ARRAYS),
    )


@given(records=st.lists(any_record(), max_size=4, unique_by=lambda record: record.record_id))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_record_survives_segment_and_part(
    tmp_path_factory: pytest.TempPathFactory, records: list[AnswerRecord]
) -> None:
    folder = tmp_path_factory.mktemp("any") / "archive"
    with ProjectArchive.create(folder) as archive:
        archive.append(records)
        digest = archive.digest()
        assert all(same_record(archive.get(record.record_id), record) for record in records)
        archive.compact()
        assert archive.digest() == digest
    with ProjectArchive.open(folder, read_only=True) as archive:
        assert len(archive) == len(records)
        assert all(same_record(archive.get(record.record_id), record) for record in records)
        assert archive.verify() == []


def test_half_precision_is_a_choice_for_good_and_says_what_does_not_fit(tmp_path: Path) -> None:
    with ProjectArchive.create(tmp_path / "a", latents="float16") as archive:
        archive.append(RECORDS[:3])
        kept, given_ = archive.get(RECORDS[0].record_id).latent, RECORDS[0].latent
        assert kept is not None
        assert given_ is not None
        assert kept.dtype == np.float32
        assert np.array_equal(kept, given_.astype(np.float16).astype(np.float32))
        with pytest.raises(ArchiveError, match="beyond float16"):
            archive.append([replace(RECORDS[5], latent=np.full((2, 8), 1e6, np.float32))])
        assert len(archive) == 3
    with ProjectArchive.open(tmp_path / "a", read_only=True) as archive:
        assert archive.latents == "float16"
    with pytest.raises(ArchiveError, match="expected latents float16 or float32"):
        ProjectArchive.create(tmp_path / "b", latents="float64")  # type: ignore[arg-type]


def test_segments_are_sealed_and_parts_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(part_writer, "PART_ROWS", 25)
    monkeypatch.setattr(part_writer, "GROUP_ROWS", 4)
    with ProjectArchive.create(tmp_path / "archive") as archive:
        for start in range(0, 60, 5):
            archive.append(RECORDS[start : start + 5])
        assert archive.stats()["segments"] > 2
        digest = archive.digest()
        archive.compact()
        assert (archive.stats()["segments"], archive.stats()["parts"]) == (0, 3)
        archive.append([answer_record(60)])
        archive.compact()
        assert archive.stats()["parts"] == 3  # the last, small one has taken the new record in
        assert archive.remove([answer_record(60).record_id], reason="test").removed == 1
        assert archive.digest() == digest
        wanted = [RECORDS[place].record_id for place in (59, 0, 26, 24, 25)]
        assert [record.record_id for record in archive.records(wanted)] == wanted
        assert archive.table(columns=["query_id"]).column(0).to_pylist() == [item.query_id for item in RECORDS]
        assert archive.verify() == []
    assert {path.suffix for path in (tmp_path / "archive" / "segments").iterdir()} == set()


def test_an_answer_is_found_by_its_question(archive: ProjectArchive) -> None:
    archive.append(RECORDS)
    again = replace(RECORDS[0], record_id="other-run/p0000-00", fidelity="coarse")
    archive.append([again])
    for compacted in (False, True):
        if compacted:
            archive.compact()
        key = RECORDS[0].key()
        assert [record.record_id for record in archive.lookup(key)] == [RECORDS[0].record_id]
        anything = EvaluationKey(key.oracle, key.oracle_version, key.oracle_parameters, None, key.canonical)
        assert [record.record_id for record in archive.lookup(anything)] == [RECORDS[0].record_id, again.record_id]
        for name in ("oracle", "oracle_version", "oracle_parameters", "fidelity", "canonical"):
            assert archive.lookup(replace(key, **{name: "another"})) == []


def test_columns_are_read_by_condition(archive: ProjectArchive) -> None:
    archive.append(RECORDS[:30])
    archive.compact()
    archive.append(RECORDS[30:])
    found = archive.table("status = 'failed' and worker = 'evaluator-0'", ["record_id", "failure_stage"])
    expected = [record for record in RECORDS if record.failure is not None and record.worker == "evaluator-0"]
    assert found.column("record_id").to_pylist() == [record.record_id for record in expected]
    assert set(found.column("failure_stage").to_pylist()) == {"scf"}
    assert "latent" not in archive.table().column_names
    latents = archive.table("proposal = 2", ["latent", "latent_shape"])
    assert latents.column("latent").to_pylist() == [record.latent.tobytes() for record in RECORDS[32:48]]  # type: ignore[union-attr]
    with pytest.raises(ArchiveError, match=r"no column 'colour'; expected any of record_id"):
        archive.table(columns=["colour"])


def test_statistics_count_everything(archive: ProjectArchive) -> None:
    archive.append(RECORDS[:50])
    archive.compact()
    archive.append(
        [answer_record(n, run_id="r2", contributor="bob", reused_from=RECORDS[n].record_id) for n in (0, 1)]
    )
    archive.append([answer_record(2, run_id="r2", reused_from=f"{RECORDS[1].record_id} {RECORDS[2].record_id}")])
    facts = archive.stats()
    assert facts["rows"] == 53
    assert facts["runs"] == 2
    assert facts["contributors"] == {"alice": 51, "bob": 2}
    assert facts["statuses"] == {"ok": 46, "failed": 7}
    assert facts["oracles"] == {"test:sum": 53}
    assert facts["saved"] == {"queries": 3, "cost": 3.0, "seconds": 1.5}
    on_disk = {path.suffix: path.stat().st_size for path in archive.path.rglob("0*.*")}
    assert facts["bytes"]["latents"] == on_disk[".latents"] == 50 * 16 * 4
    assert facts["bytes"]["noise"] == on_disk[".noise"] == 50 * 64 * 4
    assert facts["bytes"]["segments"] == on_disk[".seg"]
    assert facts["bytes"]["total"] == sum(on_disk.values()) + (archive.path / "manifest.json").stat().st_size


def test_an_empty_archive_answers_everything(archive: ProjectArchive) -> None:
    archive.compact()
    assert len(archive) == 0
    assert archive.table("value > 1").num_rows == 0
    assert archive.lookup(RECORDS[0].key()) == []
    distances, ids = archive.neighbours("b", np.zeros((2, 4), np.float32), 3)
    assert distances.shape == (2, 0)
    assert ids == [[], []]
    assert archive.stats()["rows"] == 0
    assert archive.verify() == []
    assert archive.append([]) == []


def test_one_process_owns_and_readers_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with ProjectArchive.create(path) as owner:
        owner.append(RECORDS[:2])
        with pytest.raises(ArchiveError, match="in use by another"):
            ProjectArchive.open(path)
        with ProjectArchive.open(path, read_only=True) as reader:
            for change in (
                lambda: reader.append(RECORDS),
                reader.compact,
                lambda: reader.remove([RECORDS[0].record_id], reason="test"),
            ):
                with pytest.raises(ArchiveError, match="opened to read"):
                    change()
            assert len(reader) == 2
    with pytest.raises(ArchiveError, match="was closed"):
        len(owner)


def test_what_is_no_archive_is_said_in_one_line(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(ArchiveError, match="no archive here"):
            ProjectArchive.open(tmp_path / "nothing", read_only=read_only)
    assert not (tmp_path / "nothing").exists()
    ProjectArchive.create(tmp_path / "a").close()
    with pytest.raises(ArchiveError, match="holds an archive already"):
        ProjectArchive.create(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    with pytest.raises(ArchiveError, match=r"holds thesis\.tex and no archive"):
        ProjectArchive.create(tmp_path / "b")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ArchiveError, match="is a file and no folder"):
        ProjectArchive.create(tmp_path / "file")
    with pytest.raises(ArchiveError, match="no archive here"):
        ProjectArchive.open(tmp_path / "file", read_only=True)
    with pytest.raises(ValueError, match="needs a record_id"):
        replace(RECORDS[0], record_id="")
    with pytest.raises(ValueError, match="exactly if it is ok"):
        replace(RECORDS[0], value=None)


def test_a_record_that_cannot_be_stored_adds_nothing(archive: ProjectArchive) -> None:
    archive.append(RECORDS[:1])
    for wrong in ({"seed": -1}, {"campaign": "\ud800"}, {"proposal": 2**70}):
        with pytest.raises(ArchiveError, match="cannot be stored"):
            archive.append([RECORDS[1], replace(RECORDS[2], **wrong)])  # type: ignore[arg-type]
    assert len(archive) == 1


def test_a_full_disk_is_one_clear_line_and_loses_nothing(
    archive: ProjectArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.append(RECORDS[:5])
    segment = next((archive.path / "segments").iterdir())
    size = segment.stat().st_size
    import os

    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        write(descriptor, bytes(data)[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for change in (lambda: archive.append(RECORDS[5:9]), archive.compact):
        with pytest.raises(StorageError, match="No space left on device; free space"):
            change()
    monkeypatch.setattr(os, "write", write)
    assert segment.stat().st_size == size
    assert archive.append(RECORDS[5:9]) == [record.record_id for record in RECORDS[5:9]]
    archive.compact()
    assert len(archive) == 9
    assert archive.verify() == []


def test_the_words_of_the_archive_import_neither_arrow_nor_torch() -> None:
    code = "import sys; from pilotwave.archive.project import AnswerRecord; "
    code += "print({'torch', 'pyarrow', 'duckdb', 'numba'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    )
    code = "import sys; from pilotwave.archive.project import ProjectArchive; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    )
