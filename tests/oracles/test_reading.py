"""Numbers found in what programs write."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pilotwave.errors import OracleFailure
from pilotwave_oracles.reading import Reading, follow, parse_path

ORCA = """
FINAL SINGLE POINT ENERGY       -76.123456789
 some lines
FINAL SINGLE POINT ENERGY       -76.200000000
                             ****ORCA TERMINATED NORMALLY****
"""


def test_the_last_match_counts_unless_the_first_is_wanted() -> None:
    pattern = r"^FINAL SINGLE POINT ENERGY\s+(\S+)"
    assert Reading(pattern=pattern).find(ORCA) == -76.2
    assert Reading(pattern=pattern, match="first").find(ORCA) == -76.123456789
    assert Reading(pattern=r"-?\d+\.\d+", match="first").find(ORCA) == -76.123456789


@pytest.mark.parametrize(
    ("text", "number"), [("1.5D+02", 150.0), ("-.5d-1", -0.05), ("1.e3", 1000.0), ("7", 7.0), ("+2.5E0", 2.5)]
)
def test_fortran_writes_numbers_its_own_way(text: str, number: float) -> None:
    assert Reading(pattern=r"E = (\S+)").find(f"E = {text}\n") == number


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "1e999", "", "1.2.3", "D2", "0x10"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(OracleFailure, match="expected a finite number") as caught:
        Reading(pattern=r"E =(.*)").find(f"E ={text}")
    assert caught.value.stage == "output"


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(OracleFailure, match="nothing in stderr matches 'E='"):
        Reading(pattern="E=", file="stderr").find("")


DOCUMENT = {"scores": [{"value": 1.5}, {"value": 2}], "a key": {'"': [3]}, "flag": True, "text": "4e1"}


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("scores[0].value", 1.5),
        ("$.scores[-1].value", 2.0),
        (r'["a key"]["\""][0]', 3.0),
        ("text", 40.0),
        ('$["scores"][1]["value"]', 2.0),
    ],
)
def test_paths_lead_into_json(path: str, number: float) -> None:
    assert Reading(path=path).find(json.dumps(DOCUMENT)) == number


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("score", r"score leads nowhere in stdout: no 'score', but \{"),
        ("scores[2]", r"no 2 after \['scores'\]"),
        ("scores.value", "no 'value' after"),
        ("text[0]", "no 0 after"),
        ("flag", "expected a finite number as flag in stdout, got True"),
        ("scores", "expected a finite number"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(path: str, words: str) -> None:
    with pytest.raises(OracleFailure, match=words) as caught:
        Reading(path=path).find(json.dumps(DOCUMENT))
    assert caught.value.stage == "output"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "not json", "[" * 100_000])
def test_output_that_is_no_json_is_shown(text: str) -> None:
    with pytest.raises(OracleFailure, match="expected JSON in stdout"):
        Reading(path="a").find(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "exactly one of pattern and path"),
        ({"pattern": "a", "path": "b"}, "exactly one of pattern and path"),
        ({"pattern": "("}, "expected a regular expression, got '\\('"),
        ({"pattern": "(a)(b)"}, "at most one group"),
        ({"path": "a..b"}, "expected a path like"),
        ({"path": "a[x]"}, "expected a path like"),
        ({"path": "a", "file": "../secret"}, "inside the program's folder"),
        ({"path": "a", "file": "/etc/passwd"}, "inside the program's folder"),
    ],
)
def test_a_wrong_reading_is_refused_at_validation(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Reading.model_validate(fields)


@given(st.lists(st.text(max_size=8) | st.integers(-5, 5), max_size=5))
def test_any_keys_can_be_written_as_a_path(steps: list[str | int]) -> None:
    path = "".join(f"[{json.dumps(step)}]" for step in steps)
    assert parse_path(path) == steps


@given(st.text(max_size=20))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        steps = parse_path(text)
    except ValueError:
        return
    if steps:
        with pytest.raises(OracleFailure, match="leads nowhere in stdout"):
            follow(None, text, "stdout")
    else:
        assert follow("all", text, "stdout") == "all"
