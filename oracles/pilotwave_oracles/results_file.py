"""Results that people hand in as CSV or SDF: what can be used, and in which line something cannot.

May import the standard library.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = (".csv", ".tsv", ".sdf")

_OURS = frozenset({"number", "written", "label", "media", "file", "smiles", "class_name"})
"""Columns of candidates.csv, which people like to copy: no results of theirs."""

_UNIT_IN_NAME = re.compile(r"(.*?)\s*[\[(]([^\])]*)[\])]\s*")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_FIELD = re.compile(r">.*?<([^>]*)>")


@dataclass(frozen=True)
class Result:
    """What one line says of one candidate: a value or a failure.

    Attributes:
        id: Of the candidate.
        place: ``"file:line"``.
        value: Finite, or None if it failed.
        failure: Why there is no value, or None.
        cost: Or None if it is not said.
        fidelity: Or None if it is not said.
        properties: The numbers in all other columns.
    """

    id: str
    place: str
    value: float | None
    failure: str | None = None
    cost: float | None = None
    fidelity: str | None = None
    properties: Mapping[str, float] = field(default_factory=dict)

    def says_the_same(self, other: Result) -> bool:
        """Whether two lines agree."""
        return (self.id, self.value, self.failure) == (other.id, other.value, other.failure)


@dataclass(frozen=True)
class Columns:
    """What the columns are called and which unit is expected; names count without regard to case."""

    id: str = "id"
    value: str = "value"
    unit: str = ""


@dataclass
class ResultsFile:
    """A file that was read: its results, and one line for each that cannot be used."""

    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_results(name: str, data: bytes, columns: Columns) -> ResultsFile:
    """Reads a results file.

    Lines without a value and without a failure are not measured yet and are passed over.

    Args:
        name: What to call it; the suffix says what it is.
        data: What it holds: UTF-8, UTF-16 with its mark, or else Windows-1252.
        columns: See there.
    """
    found = ResultsFile()
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        found.problems.append(f"{name}: expected a file that ends with {', '.join(SUFFIXES)}")
        return found
    text = _decoded(data)
    lines = _sdf_lines(text, columns) if suffix == ".sdf" else _csv_lines(text, suffix, columns)
    try:
        for line in lines:
            place = f"{name}:{line.number}"
            try:
                result = _result(place, line, columns)
            except ValueError as error:
                found.problems.append(f"{place}: {error}")
                continue
            if result is not None:
                found.results.append(result)
    except (ValueError, csv.Error) as error:
        found.problems.append(f"{name}:1: {error}")
    return found


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


@dataclass(frozen=True)
class _Line:
    """A line of a table or a record of an SD file.

    Attributes:
        number: From 1.
        fields: By column, in lower case.
        comma: Whether numbers in it may have a decimal comma.
        problem: Why it cannot be used, or "".
    """

    number: int
    fields: dict[str, str]
    comma: bool = False
    problem: str = ""


def _csv_lines(text: str, suffix: str, columns: Columns) -> Iterator[_Line]:
    """Yields the lines of a table; a ValueError says what is wrong with its first line."""
    first = text.partition("\n")[0]
    separator = "\t" if suffix == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=separator)
    if first.lower().startswith("sep="):  # how Excel names the separator
        next(reader)
    header = [name.strip() for name in next(reader, [])]
    names = [_column(name, columns) for name in header]
    for needed in (columns.id.lower(), columns.value.lower()):
        if names.count(needed) != 1:
            raise ValueError(f"expected one column {needed!r}, found {', '.join(header) or 'an empty file'}")
    for row in reader:
        fields = dict(zip(names, (item.strip() for item in row), strict=False))
        surplus = any(item.strip() for item in row[len(names) :])
        problem = f"expected {len(names)} columns, got {len(row)}" if surplus else ""
        yield _Line(reader.line_num, fields, separator == ";", problem)


def _column(name: str, columns: Columns) -> str:
    """Returns a column's name; the value's may name its unit, as in ``value [mV]``, which must be ours."""
    named = _UNIT_IN_NAME.fullmatch(name)
    if named and named.group(1).lower() == columns.value.lower():
        if named.group(2).strip() != columns.unit:
            raise ValueError(f"expected values in {columns.unit or 'no unit'}, got a column {name!r}")
        return columns.value.lower()
    return name.lower()


def _sdf_lines(text: str, columns: Columns) -> Iterator[_Line]:
    """Yields the records of an SD file; the title is the id of one that has no field for it."""
    fields: dict[str, str] = {}
    name: str | None = None
    begun, fresh = 1, True
    for number, line in enumerate(text.splitlines(), 1):
        if fresh:
            begun, fresh, fields, name = number, False, {columns.id.lower(): line.strip()}, None
        elif line.startswith("$$$$"):
            yield _Line(begun, fields)
            fresh = True
        elif line.startswith(">") and (header := _FIELD.match(line)):
            name = _column(header.group(1).strip(), columns)
            fields[name] = ""
        elif not line.strip():
            name = None
        elif name is not None:
            fields[name] = f"{fields[name]} {line.strip()}".strip()


def _result(place: str, line: _Line, columns: Columns) -> Result | None:
    """Returns what a line says, or None if it says nothing yet; a ValueError says what is wrong with it."""
    if line.problem:
        raise ValueError(line.problem)
    fields, comma = line.fields, line.comma
    known = {columns.id.lower(), columns.value.lower(), "unit", "failure", "cost", "fidelity"}
    text = {name: fields.get(name, "") for name in known}
    name, value, failure = text[columns.id.lower()], text[columns.value.lower()], text["failure"]
    if not value and not failure:
        return None
    if not name:
        raise ValueError("expected the id of a candidate, found none")
    if value and failure:
        raise ValueError(f"expected a value or a failure for {name}, got both")
    if text["unit"] and text["unit"] != columns.unit:
        raise ValueError(f"expected {name} in {columns.unit or 'no unit'}, got {text['unit']!r:.40}")
    others = {key: _number(item, comma) for key, item in fields.items() if key not in known | _OURS}
    cost = _number(text["cost"], comma)
    if text["cost"] and (cost is None or cost < 0):
        raise ValueError(f"expected a cost of 0 or more for {name}, got {text['cost']!r:.40}")
    number = _number(value, comma)
    if value and number is None:
        raise ValueError(f"expected a finite number for {name}, got {value!r:.40}")
    return Result(
        name,
        place,
        number,
        failure or None,
        cost,
        text["fidelity"] or None,
        {key: item for key, item in others.items() if key and item is not None},
    )


def _number(text: str, comma: bool) -> float | None:
    if comma and _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


__all__ = ["SUFFIXES", "Columns", "Result", "ResultsFile", "read_results"]
