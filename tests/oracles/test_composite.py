"""Oracles made of others: sums, products, requirements, gates, and what happens when a part fails."""

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pilotwave.config.campaign import campaign_model
from pilotwave.config.components import OracleConfig
from pilotwave.errors import InputError, OracleFailure, PreflightError
from pilotwave.execution.oracle_process import OracleProcess
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample
from pilotwave.testing.oracle_contract import OracleContract
from pilotwave_oracles.composite import CompositeOracleConfig
from pilotwave_oracles.composite_part import Part, Requirement
from pilotwave_oracles.desirability import Desirability
from pilotwave_oracles.jpeg import JpegOracleConfig
from pilotwave_oracles.python_callable import KnownValue, PythonOracleConfig
from pilotwave_oracles.rdkit_properties import RdkitOracleConfig, aspirin
from pilotwave_oracles.xtb import XtbOracleConfig
from pilotwave_oracles.xtb_water import WATER

CONTEXT = QueryContext("q")
LOGP = Part(
    name="logp",
    oracle=RdkitOracleConfig(property="logp"),
    desirability=Desirability(low=1, high=3, margin=2),
    weight=2,
    cost=0,
)
GAP = Part(name="gap", oracle=XtbOracleConfig(property="gap"), desirability=Desirability(low=4, margin=4), weight=1)


class TestProductContract(OracleContract):
    def config(self) -> CompositeOracleConfig:
        return CompositeOracleConfig(combine="product", parts=(LOGP, GAP))


class TestGatedSumContract(OracleContract):
    def config(self) -> CompositeOracleConfig:
        weight = RdkitOracleConfig(property="molecular_weight")
        gate = Part(name="weight", oracle=weight, weight=0, require=Requirement(minimum=100))
        return CompositeOracleConfig(combine="sum", parts=(gate, GAP), unmet="fail")


FUNCTIONS = """
from pathlib import Path
from pilotwave.errors import OracleFailure
from pilotwave.types import Answer

def first(sample):
    return float(sample.array[0])

def second(sample):
    with (Path(__file__).parent / "asked").open("a") as file:
        file.write("x")
    return Answer(float(sample.array[1]), {"detail": 7.0}, fidelity="high", cost=10.0)

def failing(sample):
    raise OracleFailure("no luck", stage="luck", retryable=True)

def breaking(sample):
    raise ConnectionError("gone")
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    file = tmp_path / "functions.py"
    file.write_text(FUNCTIONS)
    return file


def part(file: Path, name: str, **fields: Any) -> Part:
    oracle = PythonOracleConfig(function=f"{file}:{name}", accepts=("array",))
    return Part(name=fields.pop("name", name), oracle=oracle, **fields)


def asked(file: Path) -> int:
    log = file.parent / "asked"
    return len(log.read_text()) if log.exists() else 0


def array(*numbers: float) -> ArraySample:
    import numpy as np

    return ArraySample(np.array(numbers, dtype=np.float32))


def test_a_sum_weighs_values_and_desirabilities_and_adds_up_costs(functions: Path) -> None:
    parts = (
        part(functions, "first", weight=2.0),
        part(functions, "second", weight=-1.0, desirability=Desirability(low=4, margin=4)),
    )
    answer = CompositeOracleConfig(combine="sum", parts=parts).build().evaluate(array(3, 2), CONTEXT)
    assert answer.value == pytest.approx(2 * 3 - 0.5)
    assert answer.cost == 11
    assert answer.fidelity == "first: standard, second: high"
    assert answer.properties == {"first": 3, "second": 2, "second.detail": 7, "second.desirability": 0.5}


def test_a_product_is_the_weighted_geometric_mean(functions: Path) -> None:
    window = Desirability(low=4, margin=4)
    parts = (
        part(functions, "first", weight=3.0, desirability=window),
        part(functions, "second", desirability=window, cost=2.5),
    )
    oracle = CompositeOracleConfig(combine="product", parts=parts).build()
    answer = oracle.evaluate(array(2, 1), CONTEXT)
    assert answer.value == pytest.approx((0.5**3 * 0.25) ** (1 / 4))
    assert answer.cost == 3.5
    assert oracle.evaluate(array(9, 9), CONTEXT).value == 1


def test_a_product_spares_what_cannot_help_any_more(functions: Path) -> None:
    window = Desirability(low=4, margin=4)
    parts = (part(functions, "first", desirability=window), part(functions, "second", desirability=window))
    sparing = CompositeOracleConfig(combine="product", parts=parts)
    answer = sparing.build().evaluate(array(0, 4), CONTEXT)
    assert (answer.value, answer.fidelity, answer.cost, asked(functions)) == (0, "stopped at first", 1, 0)
    whole = CompositeOracleConfig(combine="product", parts=parts, stop_at_zero=False).build()
    answer = whole.evaluate(array(0, 4), CONTEXT)
    assert (answer.value, answer.cost, asked(functions)) == (0, 11, 1)


@pytest.mark.parametrize("unmet", [-5.0, "fail"])
def test_a_requirement_keeps_the_expensive_part_from_being_asked(functions: Path, unmet: Any) -> None:
    gate = part(functions, "first", weight=0, require=Requirement(minimum=1, maximum=2))
    config = CompositeOracleConfig(combine="sum", parts=(gate, part(functions, "second")), unmet=unmet)
    oracle = config.build()
    assert oracle.evaluate(array(1.5, 6), CONTEXT).value == 6
    assert asked(functions) == 1
    for number, words in ((0.5, "first 0.5 is below the required 1"), (3, "first 3 is above the allowed 2")):
        if unmet == "fail":
            with pytest.raises(OracleFailure, match=words) as caught:
                oracle.evaluate(array(number, 6), CONTEXT)
            assert (caught.value.stage, caught.value.retryable) == ("first: requirement", False)
        else:
            answer = oracle.evaluate(array(number, 6), CONTEXT)
            assert (answer.value, answer.fidelity, answer.cost) == (-5, "stopped at first", 1)
            assert answer.properties == {"first": number}
    assert asked(functions) == 1


@pytest.mark.parametrize(
    ("name", "stage", "words"),
    [("failing", "failing: luck", "failing: no luck"), ("breaking", "breaking: callable", "ConnectionError: gone")],
)
def test_a_part_that_fails_fails_the_whole_with_its_stage(
    functions: Path, name: str, stage: str, words: str
) -> None:
    config = CompositeOracleConfig(combine="sum", parts=(part(functions, "first"), part(functions, name)))
    with pytest.raises(OracleFailure, match=words) as caught:
        config.build().evaluate(array(1, 1), CONTEXT)
    assert (caught.value.stage, caught.value.retryable) == (stage, True)


def test_molecules_are_judged_by_chemistry_of_both_kinds() -> None:
    oracle = CompositeOracleConfig(combine="product", parts=(LOGP, GAP)).build()
    assert oracle.name == "composite:product of logp, gap (eV)"
    answer = oracle.evaluate(aspirin(), CONTEXT)
    gap = XtbOracleConfig(property="gap").build().evaluate(aspirin(), CONTEXT)
    assert answer.properties["gap"] == gap.value
    assert answer.properties["gap.dipole"] == gap.properties["dipole"]
    expected = math.exp((2 * math.log(answer.properties["logp.desirability"]) + math.log((gap.value) / 4)) / 3)
    assert answer.value == pytest.approx(min(1.0, expected))
    assert (answer.cost, answer.fidelity) == (1, "logp: rdkit, gap: gfn2")
    with pytest.raises(OracleFailure, match="logp: expected a mol block") as caught:
        oracle.evaluate(MoleculeSample("nonsense", "?"), CONTEXT)
    assert caught.value.stage == "logp: parse"


def test_composites_nest(functions: Path) -> None:
    window = Desirability(low=4, margin=4)
    inner = CompositeOracleConfig(combine="product", parts=(part(functions, "first", desirability=window),))
    outer = CompositeOracleConfig(
        combine="product",
        parts=(Part(name="inner", oracle=inner), part(functions, "second", desirability=window)),
    )
    answer = outer.build().evaluate(array(2, 8), CONTEXT)
    assert answer.value == pytest.approx(math.sqrt(0.5))
    assert answer.properties["inner.first"] == 2
    bad = Part(name="inner", oracle=inner.model_copy(update={"unmet": -1.0}))
    assert (
        outer.build().version
        != CompositeOracleConfig(combine="product", parts=(bad, outer.parts[1])).build().version
    )


def test_the_parts_limits_are_the_wholes(functions: Path) -> None:
    chemistry = CompositeOracleConfig(combine="product", parts=(LOGP, GAP))
    assert (chemistry.time_limit, chemistry.recycle_after) == (60 + 120, 1000)
    stated = CompositeOracleConfig(combine="product", parts=(LOGP, GAP), time_limit=7, recycle_after=None)
    assert (stated.time_limit, stated.recycle_after) == (7, None)
    assert chemistry.missing_packages() == []


def test_every_part_is_asked_its_known_question_before_anything_is_paid(functions: Path) -> None:
    known = KnownValue(array=(3.0, 1.0), value=4.0)
    oracle = PythonOracleConfig(function=f"{functions}:first", accepts=("array",), known=known)
    wrong = CompositeOracleConfig(combine="sum", parts=(Part(name="wrong", oracle=oracle),))
    with pytest.raises(PreflightError, match=r"part wrong: .*expected 4 .* got 3"):
        wrong.build().known_answer()
    host = OracleProcess(wrong, name="preflight")
    try:
        with pytest.raises(PreflightError, match="part wrong"):
            host.preflight()
    finally:
        host.close()
    right = oracle.model_copy(update={"known": KnownValue(array=(3.0, 1.0), value=3.0)})
    gate = Part(name="right", oracle=right, require=Requirement(minimum=5))
    assert CompositeOracleConfig(combine="sum", parts=(gate,), unmet="fail").build().known_answer() is None
    known_question = CompositeOracleConfig(combine="sum", parts=(gate,), unmet=0).build().known_answer()
    assert known_question is not None
    assert known_question.value is None


def test_it_is_written_and_read_with_its_parts() -> None:
    config = CompositeOracleConfig(combine="product", parts=(LOGP, GAP), unmet=-1)
    assert CompositeOracleConfig.model_validate_json(config.model_dump_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    written = config.model_dump(mode="json")["parts"][1]["oracle"]
    assert not set(OracleConfig.model_fields) - {"kind"} & set(written)
    limited = GAP.model_copy(update={"oracle": XtbOracleConfig(property="gap", time_limit=5)})
    assert limited.model_dump(mode="json")["oracle"]["time_limit"] == 5


def test_the_kinds_of_sample_are_those_that_every_part_takes(functions: Path) -> None:
    anything = Part(name="any", oracle=PythonOracleConfig(function=f"{functions}:first"))
    config = CompositeOracleConfig(combine="sum", parts=(anything, Part(name="size", oracle=JpegOracleConfig())))
    assert config.accepted_media() == config.build().media == {"image"}
    with pytest.raises(ValidationError, match="same kind of sample, got gap: molecule; size: image"):
        CompositeOracleConfig(combine="sum", parts=(GAP, Part(name="size", oracle=JpegOracleConfig())))
    import numpy as np

    image, chemistry = (
        ImageSample(np.zeros((4, 4, 1), dtype=np.uint8)),
        CompositeOracleConfig(combine="sum", parts=(GAP,)),
    )
    oracle = chemistry.build()
    with pytest.raises(OracleFailure, match="expected molecule, got image") as caught:
        oracle.evaluate(image, CONTEXT)
    assert caught.value.stage == "media"


PLAIN = {"name": "gap", "oracle": {"kind": "xtb", "property": "gap"}}
GATED = {**PLAIN, "require": {"minimum": 1}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"combine": "product", "parts": [PLAIN]}, "part gap: a product needs its desirability"),
        ({"combine": "sum", "parts": [PLAIN, PLAIN]}, "a name of its own, got gap twice"),
        ({"combine": "sum", "parts": [GATED]}, "part gap has require; say what is answered"),
        ({"combine": "sum", "parts": [{**PLAIN, "weight": 0}]}, "a weight other than 0"),
        ({"combine": "sum", "parts": []}, "at least 1 item"),
        ({"combine": "sum", "parts": [{**PLAIN, "require": {}}], "unmet": "fail"}, "minimum, maximum or both"),
        ({"combine": "sum", "parts": [{**PLAIN, "oracle": {"property": "gap"}}]}, "an oracle with its kind"),
        ({"combine": "sum", "parts": [{**PLAIN, "oracle": {"kind": "xtbb"}}]}, "did you mean 'xtb'"),
        (
            {"combine": "sum", "parts": [{**PLAIN, "oracle": {"kind": "xtb", "property": "gaps"}}]},
            "property: Input",
        ),
        (
            {"combine": "sum", "parts": [{**PLAIN, "oracle": {**PLAIN["oracle"], "attempts": 3}}]},  # type: ignore[dict-item]
            "attempts cannot be set on a part",
        ),
        (
            {"combine": "product", "parts": [{**PLAIN, "weight": -1, "desirability": {"low": 1, "margin": 1}}]},
            "a weight of at least 0 in a product",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CompositeOracleConfig.model_validate({"kind": "composite", **fields})


def test_a_part_that_cannot_be_built_is_named() -> None:
    soup = Part(name="wet", oracle=XtbOracleConfig(property="gap", solvent="soup"))
    with pytest.raises(InputError, match="part wet: solvent: 'soup'"):
        CompositeOracleConfig(combine="sum", parts=(soup,)).build()


@pytest.mark.parametrize(
    "oracle",
    [
        CompositeOracleConfig(combine="product", parts=(LOGP, GAP)),
        XtbOracleConfig(property="gap", desirability=Desirability(low=1, margin=1)),
        RdkitOracleConfig(property="logp", desirability=Desirability(low=1, margin=1)),
    ],
)
def test_a_campaign_does_not_minimize_a_desirability(oracle: OracleConfig) -> None:
    fields: dict[str, Any] = {"backbone": {"kind": "molecule"}, "oracle": oracle, "budget": {"queries": 16}}
    campaign_model().model_validate(fields)
    with pytest.raises(ValidationError, match=r"expected objective.direction: maximize; got minimize"):
        campaign_model().model_validate({**fields, "objective": {"direction": "minimize"}})


def test_a_campaign_takes_no_parts_for_another_kind_of_sample() -> None:
    fields = {
        "backbone": {"kind": "molecule"},
        "oracle": CompositeOracleConfig(combine="sum", parts=(Part(name="size", oracle=JpegOracleConfig()),)),
        "budget": {"queries": 16},
    }
    with pytest.raises(ValidationError, match="but oracle 'composite' takes image"):
        campaign_model().model_validate(fields)


def test_water_is_spared_by_the_gate() -> None:
    gate = Part(
        name="weight",
        oracle=RdkitOracleConfig(property="molecular_weight"),
        weight=0,
        require=Requirement(minimum=50),
    )
    oracle = CompositeOracleConfig(combine="sum", parts=(gate, GAP), unmet=0.0).build()
    answer = oracle.evaluate(MoleculeSample(WATER, "O"), CONTEXT)
    assert (answer.value, answer.fidelity) == (0.0, "stopped at weight")
    assert "gap" not in answer.properties
