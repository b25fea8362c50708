"""Readers in other processes see whole records and whole appends while an owner writes, compacts and removes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from pilotwave.archive.project import ProjectArchive
from pilotwave.testing.answer_records import answer_record

BATCH = 8
STAYS = 240

READER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from pilotwave.archive.project import ProjectArchive
    from pilotwave.archive.project.schema import row_digest, rows_of, schema
    from pilotwave.testing.answer_records import answer_record

    stays = [answer_record(number).record_id for number in range({stays})]
    reads = most = 0
    print("ready", flush=True)
    archive = ProjectArchive.open(Path(sys.argv[1]), read_only=True)
    last = False
    while not last:
        last = Path(sys.argv[2]).exists()
        if reads % 5 == 4:
            archive.close()
            archive = ProjectArchive.open(Path(sys.argv[1]), read_only=True)
        table = archive.table(columns=schema().names)
        rows = rows_of(table)
        assert all(row_digest(row) == row["digest"] for row in rows)
        names = [row["record_id"] for row in rows]
        assert len(set(names)) == len(names)
        here = [name for name in names if name in set(stays)]
        assert here == stays[: len(here)], "records are missing or out of order"
        assert len(here) % {batch} == 0, "half an append"
        assert len(here) >= most, "what was seen is gone"
        most = len(here)
        passing = len(names) - len(here)
        assert passing in (0, {batch}), "half a removal"
        assert archive.verify() == []
        reads += 1
    print(reads, most)
    """
).format(stays=STAYS, batch=BATCH)


def test_a_reader_never_sees_half_a_write(tmp_path: Path) -> None:
    path, finished = tmp_path / "archive", tmp_path / "finished"
    passing = [answer_record(1000 + number) for number in range(BATCH)]
    with ProjectArchive.create(path) as archive:
        command = [sys.executable, "-c", READER, str(path), str(finished)]
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        for start in range(0, STAYS, BATCH):
            archive.append([answer_record(number) for number in range(start, start + BATCH)])
            archive.append(passing)
            if start % 5 == 0:
                archive.compact()
            archive.remove([record.record_id for record in passing], reason="test")
            if start % 3 == 0:
                archive.compact()
    finished.touch()
    for reader in readers:
        said, _ = reader.communicate(timeout=120)
        assert reader.returncode == 0
        reads, most = map(int, said.split())
        assert reads > 3
        assert most == STAYS


def test_an_open_reader_follows_its_owner(tmp_path: Path) -> None:
    with (
        ProjectArchive.create(tmp_path / "a") as owner,
        ProjectArchive.open(tmp_path / "a", read_only=True) as reader,
    ):
        for start in range(0, 30, 3):
            owner.append([answer_record(number) for number in range(start, start + 3)])
            assert len(reader) == start + 3
            if start % 2:
                owner.compact()
                assert reader.get(answer_record(start).record_id).value == answer_record(start).value
        owner.remove([answer_record(0).record_id], reason="test")
        assert answer_record(0).record_id not in reader
        assert reader.digest() == owner.digest()


def test_a_reader_ignores_a_write_that_has_only_begun(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with ProjectArchive.create(path) as owner:
        owner.append([answer_record(0)])
        segment = next((path / "segments").iterdir())
        size = segment.stat().st_size
        owner.append([answer_record(1)])
    data = segment.read_bytes()
    for cut in (size + 1, size + 50, size + 200, len(data) - 1):
        for tail in (b"", b"\0" * (len(data) - cut)):
            if tail and cut > size + 1:
                continue  # zeros in the middle of a frame are damage
            segment.write_bytes(data[: cut if not tail else size] + tail)
            with ProjectArchive.open(path, read_only=True) as reader:
                assert len(reader) == 1
                assert reader.verify() == []
            with ProjectArchive.open(path) as owner:
                assert len(owner) == 1
            assert segment.stat().st_size == size
