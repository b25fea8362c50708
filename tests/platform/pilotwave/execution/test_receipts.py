"""Receipts appear whole or not at all, and are found again."""

from pathlib import Path

import pytest

from pilotwave.execution.receipts import (
    Asker,
    discard_receipt,
    newest_driver,
    read_receipt,
    read_receipts,
    receipt_path,
    wait_until_quiet,
    write_receipt,
)
from pilotwave.types import Evaluation, Status

FIRST = Evaluation("p0000-00", Status.OK, 0.1 + 0.2, attempt=1)
SECOND = Evaluation("p0000-00", Status.OK, -1e-300, attempt=2)
REDRAWN = Evaluation("p0000-01.1", Status.OK, 5.0)


def test_written_receipts_are_read_back_in_order(tmp_path: Path) -> None:
    directory = tmp_path / "receipts"
    for evaluation in (REDRAWN, SECOND, FIRST):
        write_receipt(directory, evaluation)
    assert read_receipts(directory) == [FIRST, SECOND, REDRAWN]
    assert read_receipt(directory, "p0000-00", 2) == SECOND
    assert sorted(path.name for path in directory.iterdir()) == [
        "p0000-00.1.json",
        "p0000-00.2.json",
        "p0000-01.1.1.json",
    ]


def test_a_missing_directory_holds_no_receipts(tmp_path: Path) -> None:
    assert read_receipts(tmp_path / "none") == []
    assert read_receipt(tmp_path / "none", "q", 1) is None


def test_what_a_killed_writer_left_is_passed_over(tmp_path: Path) -> None:
    whole = write_receipt(tmp_path, FIRST)
    text = whole.read_bytes()
    (tmp_path / "p0000-09.1.json.123.tmp").write_bytes(text)
    for length in range(0, len(text), 7):
        (tmp_path / f"torn-{length}.1.json").write_bytes(text[:length])
    assert read_receipts(tmp_path) == [FIRST]


def test_discarding_removes_one_attempt_and_may_be_repeated(tmp_path: Path) -> None:
    write_receipt(tmp_path, FIRST)
    write_receipt(tmp_path, SECOND)
    discard_receipt(tmp_path, FIRST)
    discard_receipt(tmp_path, FIRST)
    assert read_receipts(tmp_path) == [SECOND]


def test_a_later_receipt_of_the_same_attempt_replaces_the_first(tmp_path: Path) -> None:
    write_receipt(tmp_path, FIRST)
    other = Evaluation("p0000-00", Status.OK, 7.0, attempt=1)
    write_receipt(tmp_path, other)
    assert read_receipts(tmp_path) == [other]


@pytest.mark.parametrize("query_id", ["../escape", "a/b", "", "né e", "x" * 50])
def test_any_query_id_stays_inside_the_directory(tmp_path: Path, query_id: str) -> None:
    evaluation = Evaluation(query_id, Status.OK, 1.0)
    path = write_receipt(tmp_path, evaluation)
    assert path.parent == tmp_path
    assert path == receipt_path(tmp_path, query_id, 1)
    assert read_receipts(tmp_path) == [evaluation]


def test_a_directory_that_cannot_be_written_is_an_os_error_and_leaves_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(OSError, match="file"):
        write_receipt(blocked, FIRST)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_worker_of_others_asks_only_for_the_newest_driver(tmp_path: Path) -> None:
    assert newest_driver(tmp_path) == ""
    assert wait_until_quiet(tmp_path, 0.0)
    first = Asker(tmp_path, newest_driver(tmp_path))
    with first.asking() as wanted:
        assert wanted
        # The next driver begins, and waits for what is being asked; nothing more is asked for the first one.
        assert not wait_until_quiet(tmp_path, 0.0)
        with first.asking() as still_wanted:
            assert not still_wanted
    second = Asker(tmp_path, newest_driver(tmp_path))
    assert second.driver != first.driver
    assert wait_until_quiet(tmp_path, 0.0)
    with second.asking() as wanted:  # that was a third one
        assert not wanted
    assert read_receipts(tmp_path) == []
