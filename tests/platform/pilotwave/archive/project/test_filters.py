"""A filter is a condition and nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.archive.project import ArchiveError
from pilotwave.archive.project.filters import columns_of, matching_rows
from pilotwave.archive.project.schema import schema

TABLE = pa.table(
    {
        "record_id": ["a", "b", "c"],
        "value": [1.0, 2.0, None],
        "status": ["ok", "ok", "failed"],
        "oracle": ["xtb:gap", "jpeg", "xtb:gap"],
        "recorded": pa.array([0, 10**15, 2 * 10**15], pa.timestamp("us", "UTC")),
    }
)


def rows(condition: str) -> list[int]:
    found: list[int] = matching_rows(condition, TABLE.select).tolist()
    return found


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("value > 1", [1]),
        ("records.VALUE >= 1 AND oracle LIKE 'xtb:%' -- the first", [0]),
        ("value IS NULL", [2]),
        ("status IN ('ok', 'failed')", [0, 1, 2]),
        ("true", [0, 1, 2]),
        ("recorded > TIMESTAMPTZ '2000-01-01 00:00:00+00'", [1, 2]),
        ("record_id = 'a''b' OR record_id = 'b'", [1]),
        ("(value > 0) /* a comment */ AND NOT value > 1", [0]),
        ("CASE WHEN status = 'ok' THEN value > 1 ELSE true END", [1, 2]),
    ],
)
def test_conditions(condition: str, expected: list[int]) -> None:
    assert rows(condition) == expected


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("", "empty"),
        ("value >", "is wrong"),
        ("valeu > 3", "column 'valeu' that is not there"),
        ("other.value > 3", "column 'other.value'"),
        ("value > 1; DROP TABLE records", "is wrong"),
        ("value > 1) UNION (SELECT 1 FROM records WHERE true", "more than a condition"),
        ("value > 1) LIMIT (1", "more than a condition"),
        ("value > 1) GROUP BY (status", "more than a condition"),
        ("value > (SELECT 1)", "a sub-query"),
        ("EXISTS (FROM 'secrets.csv')", "a sub-query"),
        ("record_id IN (SELECT content FROM read_text('secrets.txt'))", "a sub-query"),
        ("row_number() OVER () > 1", "a window function"),
        ("value = $1", "a parameter"),
        ("sum(value) > 1", "aggregate"),
        ("read_text('secrets.txt') IS NOT NULL", "is wrong"),
        ("getenv('HOME') = 'x'", "is wrong"),
        ("status > 3 AND value", "is wrong"),
        ("COPY records TO 'stolen.csv'", "is wrong"),
        ("ATTACH 'other.db'", "is wrong"),
    ],
)
def test_whatever_is_no_condition_is_refused_in_one_line(
    condition: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets.csv").write_text("a,b\n1,2\n")
    (tmp_path / "secrets.txt").write_text("a")
    with pytest.raises(ArchiveError) as caught:
        rows(condition)
    said = " ".join(str(caught.value).split("\n"))
    assert words in said
    assert "record_id, campaign" in said  # the columns that there are
    assert "\n" not in str(caught.value).replace(condition, "")
    assert {path.name for path in tmp_path.iterdir()} == {"secrets.csv", "secrets.txt"}


def test_only_the_columns_of_the_condition_are_read() -> None:
    read: list[list[str]] = []

    def reading(names: list[str]) -> pa.Table:
        read.append(names)
        return TABLE.select(names)

    matching_rows("Value > 1 AND status = 'ok' AND value < 9", reading)
    assert read == [["value", "status"]]
    assert columns_of("true") == []


@given(st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    table = schema().empty_table()
    try:
        found = matching_rows(text, table.select)
    except ArchiveError:
        return
    assert len(found) == 0
