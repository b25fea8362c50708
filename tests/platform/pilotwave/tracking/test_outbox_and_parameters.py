from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.tracking.outbox import Outbox
from pilotwave.tracking.parameters import KEY_LENGTH, VALUE_LENGTH, flatten, name_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def test_entries_survive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    first = Outbox(path)
    for step in range(5):
        first.append({"metrics": {"best": float(step)}, "step": step})
    first.remove(2)
    second = Outbox(path)  # the first one was killed
    assert [entry["step"] for entry in second.first(10)] == [2, 3, 4]
    second.append({"step": 5})
    assert [entry["step"] for entry in Outbox(path).first(10)] == [2, 3, 4, 5]
    second.remove(4)
    assert not path.exists()
    assert len(second) == 0


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    path.write_text('{"step": 1}\n[1]\n{"step": 2}\n{"step": 3, "metr')
    assert [entry["step"] for entry in Outbox(path).first(10)] == [1, 2]


def test_a_directory_that_is_not_there_leaves_memory(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "nowhere" / "outbox.jsonl")
    outbox.append({"step": 1})
    assert len(outbox) == 1
    outbox.remove(1)
    assert len(outbox) == 0


def test_a_full_outbox_counts_what_it_drops(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl", capacity=3)
    for step in range(5):
        outbox.append({"step": step})
    assert [entry["step"] for entry in outbox.first(10)] == [0, 1, 2]
    assert outbox.dropped == 2


def test_appending_while_removing_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    outbox = Outbox(path)
    writers = [
        threading.Thread(target=lambda n=n: [outbox.append({"id": f"{n}-{i}"}) for i in range(60)])
        for n in range(3)
    ]
    for writer in writers:
        writer.start()
    taken = []
    while any(writer.is_alive() for writer in writers) or len(outbox):
        entries = outbox.first(7)
        assert [entry["id"] for entry in Outbox(path).first(7)][: len(entries)] == [
            entry["id"] for entry in entries
        ]
        taken += [entry["id"] for entry in entries]
        outbox.remove(len(entries))
    assert len(taken) == len(set(taken)) == 180


def test_parameters_are_flat_and_short() -> None:
    flat = flatten(
        {
            "budget": {"queries": 320},
            "constraints": [{"kind": "structure"}, {"kind": "synthesizability", "limit": 4.5}],
            "atoms": [1, 2],
            "none": None,
            "empty": {},
            "text": "plain",
            "long": "x" * 9000,
        }
    )
    assert flat["budget.queries"] == "320"
    assert flat["constraints.1.limit"] == "4.5"
    assert flat["atoms"] == "[1, 2]"
    assert (flat["none"], flat["empty"], flat["text"]) == ("null", "{}", "plain")
    assert len(flat["long"]) == VALUE_LENGTH
    assert flat["long"].endswith("…")


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_any_parameters_can_be_flattened(parameters: dict[str, object]) -> None:
    for key, value in flatten(parameters).items():
        assert key == name_of(key)
        assert 0 < len(key) <= KEY_LENGTH
        assert isinstance(value, str)
        assert len(value) <= VALUE_LENGTH


@settings(deadline=None)
@given(st.text(min_size=0, max_size=400))
def test_mlflow_takes_any_name(text: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    name = name_of(text)
    for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        validate(name)


def test_json_keeps_odd_numbers(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.append({"metrics": {"a": float("inf"), "b": float("-inf")}})
    assert Outbox(tmp_path / "outbox.jsonl").first(1) == outbox.first(1)
    assert json.loads((tmp_path / "outbox.jsonl").read_text())["metrics"]["a"] == float("inf")


@pytest.mark.parametrize(
    ("text", "name"), [("a//b/", "a/b"), ("gap (eV)", "gap _eV_"), ("", "_"), ("../x", "__/x"), ("é", "_")]
)
def test_names(text: str, name: str) -> None:
    assert name_of(text) == name
