"""Results that people hand in: every spreadsheet's dialect, and the line of whatever cannot be used."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_oracles.results_file import Columns, Result, read_results
from pilotwave_oracles.xtb_water import WATER

MILLIVOLT = Columns(unit="mV")


def values(text: str, name: str = "a.csv", columns: Columns = MILLIVOLT) -> dict[str, float | None]:
    found = read_results(name, text.encode(), columns)
    assert not found.problems
    return {result.id: result.value for result in found.results}


def problem(text: str, name: str = "a.csv", columns: Columns = MILLIVOLT) -> str:
    found = read_results(name, text.encode(), columns)
    (line,) = found.problems
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "text",
    [
        "id,value\na,1.5\nb,-2e3\n",
        "\ufeffID , Value\r\na,1.5\r\nb,-2e3\r\n",
        "value;id\n1,5;a\n-2e3;b\n",
        "sep=;\nid;value\na;1,5\nb;-2000,0\n",
        "id\tvalue\na\t1.5\nb\t-2000\n",
        "id,value [mV],unit\na,1.5,mV\nb,-2000,\n",
        'id,smiles,note,"value (mV)"\na,"C,C","two\nlines",1.5\nb,,, -2000 \n\n,,,\n',
        "id,value,\na,1.5,\nb,-2000,\nc,,\n",
    ],
)
def test_every_dialect_says_the_same(text: str) -> None:
    assert values(text) == {"a": 1.5, "b": -2000.0}


def test_other_encodings_are_read() -> None:
    text = "id,value,note\na,1.5,Größe\n"
    for encoding in ("utf-16", "cp1252", "utf-8"):
        (result,) = read_results("a.csv", text.encode(encoding), MILLIVOLT).results
        assert (result.id, result.value) == ("a", 1.5)


def test_what_else_a_line_says_is_kept() -> None:
    text = (
        "id,smiles,number,value,failure,cost,fidelity,temperature,who\n"
        "a,C,7,1.5,,20,assay 2,298.1,Ann\n"
        "b,C,8,,fell down,5,,,\n"
        "c,C,9,,,,,1,\n"
    )
    found = read_results("a.csv", text.encode(), MILLIVOLT)
    assert not found.problems
    assert found.results == [
        Result("a", "a.csv:2", 1.5, None, 20.0, "assay 2", {"temperature": 298.1}),
        Result("b", "a.csv:3", None, "fell down", 5.0),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,value\na,abc\n", "a.csv:2: expected a finite number for a, got 'abc'"),
        ("id,value\na,nan\n", "a.csv:2: expected a finite number for a, got 'nan'"),
        ("id,value\na,1e999\n", "a.csv:2: expected a finite number for a, got '1e999'"),
        ("id,value\na,1_000\n", "a.csv:2: expected a finite number for a, got '1_000'"),
        ('id,value\na,"1,5"\n', "a.csv:2: expected a finite number for a, got '1,5'"),
        ("id,value\na,1,5\n", "a.csv:2: expected 2 columns, got 3"),
        ("id,value\n,1.5\n", "a.csv:2: expected the id of a candidate, found none"),
        ("id,value,unit\na,1.5,V\n", "a.csv:2: expected a in mV, got 'V'"),
        ("id,value,failure\na,1.5,broke\n", "a.csv:2: expected a value or a failure for a, got both"),
        ("id,value,cost\na,1.5,free\n", "a.csv:2: expected a cost of 0 or more for a, got 'free'"),
        ("id,value [V]\na,1.5\n", "a.csv:1: expected values in mV, got a column 'value [V]'"),
        ("name,value\na,1.5\n", "a.csv:1: expected one column 'id', found name, value"),
        ("id,value,value\na,1,1\n", "a.csv:1: expected one column 'value', found id, value, value"),
        ("", "a.csv:1: expected one column 'id', found an empty file"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(text: str, words: str) -> None:
    assert problem(text) == words


def test_the_other_lines_of_a_file_still_count() -> None:
    found = read_results("a.csv", b"id,value\na,x\nb,2\n", MILLIVOLT)
    assert [result.id for result in found.results] == ["b"]
    assert len(found.problems) == 1


def test_a_file_of_another_kind_is_refused() -> None:
    assert problem("x", "a.xlsx") == "a.xlsx: expected a file that ends with .csv, .tsv, .sdf"


def test_sd_files_are_read_by_field_or_title() -> None:
    text = (
        f"{WATER}> <id>\na\n\n>  25  <VALUE>  (7)\n1.5\n\n> <note>\ntwo\nlines\n\n$$$$\n"
        f"{WATER.replace('water at its GFN2-xTB minimum', 'b')}>  <value>\n-2000\n\n> <Failure>\n\n$$$$\n"
        f"{WATER}> <id>\nc\n\n$$$$\n"
    )
    assert values(text, "a.SDF") == {"a": 1.5, "b": -2000.0}
    assert problem(text.replace("-2000", "two"), "a.sdf").startswith("a.sdf:22: expected a finite number for b")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9.,;\"' -]{1,10}", fullmatch=True).filter(str.strip),
        st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([",", ";", "\t"]),
)
def test_what_a_spreadsheet_writes_is_read_back(table: dict[str, float], separator: str) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator)
    writer.writerows([["id", "value"], *([name, repr(value)] for name, value in table.items())])
    assert values(stream.getvalue()) == {name.strip(): value for name, value in table.items()}


@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.tsv", "a.sdf"]))
def test_any_bytes_are_results_or_problems(data: bytes, name: str) -> None:
    check(name, data)


@given(st.text(alphabet="id,value;\t\n\"'\r>< $0123.eé", max_size=80), st.sampled_from(["a.csv", "a.tsv", "a.sdf"]))
def test_nearly_right_files_are_results_or_problems(text: str, name: str) -> None:
    check(name, f"id,value\n{text}".encode())


def check(name: str, data: bytes) -> None:
    found = read_results(name, data, Columns())
    for line in found.problems:
        assert line.startswith(name)
        assert "\n" not in line
    for result in found.results:
        assert result.id
        assert (result.value is None) != (result.failure is None)
