"""The JSON contract: requests by its schema, replies read strictly, and the schema in the docs is the code's."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pilotwave.errors import OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample
from pilotwave.testing.oracle_contract import garbage_of, one_of_each_media
from pilotwave_oracles.contract import contract_schema, read_reply, write_request
from pilotwave_oracles.xtb_water import WATER

CONTEXT = QueryContext("p0001-02", 3)
SCHEMA = Path(__file__).parents[2] / "docs" / "oracles" / "contract.schema.json"

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def test_the_schema_in_the_docs_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == contract_schema()


@pytest.mark.parametrize("media", ["array", "image", "molecule"])
@pytest.mark.parametrize("in_files", [True, False])
def test_every_request_is_by_the_schema_and_on_one_line(media: str, in_files: bool, tmp_path: Path) -> None:
    line = write_request(one_of_each_media()[media], CONTEXT, tmp_path if in_files else None, "npy")
    assert "\n" not in line
    fields = json.loads(line)
    jsonschema.validate(fields, contract_schema()["request"])
    assert (fields["contract"], fields["query_id"], fields["attempt"]) == (1, "p0001-02", 3)
    assert fields["sample"]["media"] == media


def test_a_molecule_is_passed_as_smiles_mol_block_and_xyz() -> None:
    sample = json.loads(write_request(MoleculeSample(WATER, "O"), CONTEXT))["sample"]
    assert sample["smiles"] == "O"
    assert sample["mol_block"] == WATER
    assert sample["xyz"].splitlines()[0] == "3"
    assert (sample["charge"], sample["multiplicity"]) == (0, 1)


def test_a_mol_block_that_is_none_has_no_xyz() -> None:
    for molecule in garbage_of("molecule"):
        assert json.loads(write_request(molecule, CONTEXT))["sample"]["xyz"] is None


def test_an_image_is_passed_as_a_png(tmp_path: Path) -> None:
    image = ImageSample(np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "ramp")
    sent = json.loads(write_request(image, CONTEXT))["sample"]
    left = json.loads(write_request(image, CONTEXT, tmp_path))["sample"]
    assert (sent["width"], sent["height"], sent["channels"], sent["class_name"]) == (4, 2, 3, "ramp")
    for data in (base64.b64decode(sent["png_base64"]), Path(left["png_file"]).read_bytes()):
        with Image.open(io.BytesIO(data)) as read:
            assert np.array_equal(np.asarray(read), image.pixels)


def test_an_array_is_passed_as_lists_or_a_file(tmp_path: Path) -> None:
    array = ArraySample(np.array([[1.5, -2.0], [0.1, 4.0]], dtype=np.float32))
    sent = json.loads(write_request(array, CONTEXT))["sample"]
    left = json.loads(write_request(array, CONTEXT, tmp_path, "npy"))["sample"]
    assert np.array_equal(np.array(sent["values"], dtype=np.float32), array.array)
    assert np.array_equal(np.load(left["npy_file"]), array.array)


def test_numbers_that_json_lacks_are_refused_in_lists_and_pass_in_files(tmp_path: Path) -> None:
    array = ArraySample(np.array([np.nan], dtype=np.float32))
    with pytest.raises(OracleFailure, match="not finite") as caught:
        write_request(array, CONTEXT)
    assert caught.value.stage == "encode"
    assert np.isnan(np.load(json.loads(write_request(array, CONTEXT, tmp_path, "npy"))["sample"]["npy_file"])).all()


@given(finite, st.dictionaries(st.text(min_size=1), finite, max_size=3), st.floats(0, 1e9))
def test_whatever_is_answered_arrives(value: float, properties: dict[str, float], cost: float) -> None:
    reply = {"contract": 1, "query_id": "q", "value": value, "properties": properties, "cost": cost, "more": "text"}
    jsonschema.validate(reply, contract_schema()["reply"])
    answer = read_reply(json.dumps(reply), "q")
    assert (answer.value, dict(answer.properties), answer.cost) == (value, properties, cost)
    assert answer.fidelity == "standard"


def test_a_failure_arrives_with_its_cost() -> None:
    failure = {"stage": "scf", "message": "not converged", "retryable": True}
    with pytest.raises(OracleFailure, match=r"^not converged$") as caught:
        read_reply(json.dumps({"failure": failure, "cost": 0.25}), "q")
    assert (caught.value.stage, caught.value.retryable, caught.value.cost) == ("scf", True, 0.25)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({}, "expected exactly one of value and failure"),
        ({"value": 1.0, "failure": {"stage": "a", "message": "b"}}, "expected exactly one of value and failure"),
        ({"value": "1.0"}, "value: Input should be a valid number"),
        ({"value": True}, "value: Input should be a valid number"),
        ({"value": [1.0]}, "value: Input should be a valid number"),
        ({"value": 1.0, "contract": 2}, "contract: Input should be 1"),
        ({"value": 1.0, "properties": {"a": "b"}}, "properties.a: Input should be a valid number"),
        ({"value": 1.0, "cost": -1}, "cost: Input should be greater than or equal to 0"),
        ({"value": 1.0, "query_id": "other"}, "expected a reply to q, got one to 'other'"),
        ({"value": 1.0, "unit": "hartree"}, "expected a value in eV, got 'hartree'"),
        ({"failure": {"message": "no stage"}}, "failure.stage: Field required"),
        ({"failure": "it broke"}, "failure: Input should be a valid dictionary"),
        ([1.0], "expected a JSON object, got list"),
        ("text", "expected a JSON object, got str"),
    ],
)
def test_what_is_wrong_with_a_reply_is_said_in_one_line(reply: Any, words: str) -> None:
    with pytest.raises(OracleFailure, match="(?s)" + words.replace(".", r"\.")) as caught:
        read_reply(json.dumps(reply), "q", "eV")
    assert caught.value.stage == "contract"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "NaN", '{"value": NaN}', '{"value": 1e999}', '{"value": 1', "\0", "[" * 10_000]
)
def test_what_is_no_finite_json_is_refused(text: str) -> None:
    with pytest.raises(OracleFailure) as caught:
        read_reply(text, "q")
    assert caught.value.stage == "contract"
    assert len(str(caught.value)) < 400


def test_the_unit_is_accepted_if_it_is_the_expected_one() -> None:
    assert read_reply('{"value": 2, "unit": "eV"}', "q", "eV").value == 2.0


@given(json_values | st.text().map(lambda text: text))
def test_any_json_is_an_answer_or_a_failure_in_one_line(value: Any) -> None:
    check(json.dumps(value))


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("value", "failure", "properties", "cost", "unit", "fidelity", "contract"), json_values
        ),
    )
)
def test_any_object_with_the_contracts_keys_is_an_answer_or_a_failure(value: Any) -> None:
    check(json.dumps(value))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_failure(data: bytes) -> None:
    check(data)


def check(text: str | bytes) -> None:
    failure = None
    try:
        answer = read_reply(text, "q")
    except OracleFailure as error:
        failure = error
    if failure is None:
        assert np.isfinite(answer.value)
    else:
        assert failure.stage
