from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pilotwave.config.campaign import CampaignConfig, Objective, campaign_schema
from pilotwave.config.loading import apply_override, check_campaign, load_campaign, parse_yaml
from pilotwave.errors import ConfigError

MINIMAL = """\
backbone: {kind: analytic}
oracle:
  kind: python
  function: "pilotwave.testing.faulty_oracles:score"
algorithm: {kind: random}
budget:
  queries: 8
  batch_size: 4
"""


def load(tmp_path: Path, text: str, *overrides: str) -> CampaignConfig:
    path = tmp_path / "campaign.yaml"
    path.write_text(text)
    return load_campaign(path, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(tmp_path), "")


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL.replace("algorithm: {kind: random}\n", ""))
    assert config.algorithm.kind == "trust-direct"
    assert config.runtime.kind == "inline"
    assert config.tracking.kind == "none"
    assert config.objective.direction == "maximize"
    assert config.oracle.attempts == 2


def test_what_is_written_down_is_read_back_as_it_was(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    again = check_campaign(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config
    assert again.identity() == config.identity()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("queries: 8", "querys: 8"), "line 7: budget.querys: unknown key; did you mean 'queries'?"),
        (
            ("kind: analytic", "kind: analitic"),
            "line 1: backbone.kind: unknown kind 'analitic'; did you mean 'analytic'?",
        ),
        (
            ("kind: random", "kind: fastdirect"),
            "algorithm.kind: unknown kind 'fastdirect'; did you mean 'fast-direct'?",
        ),
        (("queries: 8", "queries: 0"), "line 7: budget.queries: Input should be greater than or equal to 1, got 0"),
        (("queries: 8", "queries: -3"), "got -3"),
        (("queries: 8", "queries: many"), "budget.queries: Input should be a valid integer"),
        (("queries: 8", "queries: .nan"), "budget.queries"),
        (("queries: 8", "queries: 3"), "batch_size must be at most queries (3), got 4"),
        (("backbone: {kind: analytic}\n", ""), "backbone: this key is missing; add it"),
        (("{kind: random}", "random"), "line 5: algorithm: expected a mapping with the key 'kind'"),
        (("{kind: random}", "{kind: 3}"), "algorithm"),
        (("{kind: random}", "{kind: random, step: 1}"), "unknown key"),
        (("  batch_size: 4", "  queries: 9"), "line 8: the key 'queries' is said twice"),
        (("budget:", "seed: -1\nbudget:"), "seed: Input should be greater than or equal to 0, got -1"),
        (("budget:", "name: a/b\nbudget:"), "name: String should match"),
        (("budget:", "objective: {direction: up}\nbudget:"), "'maximize' or 'minimize', got 'up'"),
        (("budget:", "constraints: [{kind: struct}]\nbudget:"), "constraints.0.kind: unknown kind 'struct'"),
        (("kind: python", "kind: xtb\n  property: gap"), "unknown key"),
        (("budget:", "budget: ["), "not valid YAML"),
    ],
)
def test_each_mistake_is_one_line_that_says_where(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    assert expected in refusal(tmp_path, MINIMAL.replace(*change))


def test_an_oracle_for_another_kind_of_sample_is_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace('kind: python\n  function: "pilotwave.testing.faulty_oracles:score"', "kind: jpeg")
    assert "makes a sample of kind 'array', but oracle 'jpeg' takes image" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "just words", "a: &x [*x]\n", "? [1]\n: 2\n", "\t\n", "a: !!python/none 1"]
)
def test_what_is_no_campaign_at_all_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text)


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_campaign(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_campaign(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_campaign(tmp_path / "binary.yaml")


def test_overrides_reach_sections_lists_and_new_keys(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "budget.queries=40", "runtime.kind=inline", "runtime.evaluators=3", "seed=9")
    assert (config.budget.queries, config.runtime.evaluators, config.seed) == (40, 3, 9)
    fields: dict[str, Any] = {"a": [{"b": 1}]}
    apply_override(fields, "a.0.b=[1, 2]")
    assert fields == {"a": [{"b": [1, 2]}]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budget.queries", "expected key.key=value"),
        ("=3", "expected key.key=value"),
        ("budget..queries=3", "expected key.key=value"),
        ("budget.queries.more=3", "budget.queries is a value, not a section"),
        ("name=[", "not valid YAML"),
        ("constraints.5.kind=x", "constraints is a value, not a section"),
    ],
)
def test_a_wrong_override_is_one_line(tmp_path: Path, override: str, expected: str) -> None:
    text = MINIMAL + "constraints: x\n" if "constraints" in override else MINIMAL
    assert expected in refusal(tmp_path, text, override)


def test_the_identity_is_of_the_questions_not_of_the_place(tmp_path: Path) -> None:
    base = load(tmp_path, MINIMAL).identity()
    elsewhere = ("budget.queries=80", "runtime.evaluators=7", "oracle.time_limit=9")
    assert load(tmp_path, MINIMAL, *elsewhere).identity() == base
    for change in ("seed=1", "budget.batch_size=2", "runtime.mode=synchronous", "objective.direction=minimize"):
        assert load(tmp_path, MINIMAL, change).identity() != base


def test_the_schema_accepts_what_is_valid_and_refuses_what_is_not(tmp_path: Path) -> None:
    schema = campaign_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(yaml.safe_load(MINIMAL))
    for wrong in ("queries: 8", "kind: analytic"):
        assert not validator.is_valid(yaml.safe_load(MINIMAL.replace(wrong, "nonsense: 1")))
    for example_file in (Path(__file__).parents[4] / "examples").glob("*.yaml"):
        fields = yaml.safe_load(example_file.read_text())
        assert validator.is_valid(fields) or "search" in fields, example_file  # a study has a schema of its own


def test_every_field_of_the_schema_is_described() -> None:
    schema = campaign_schema()
    undescribed = [
        f"{name}.{key}"
        for name, model in {"campaign": schema, **schema["$defs"]}.items()
        for key, field in model.get("properties", {}).items()
        if "description" not in field and key != "kind" and "$ref" not in field
    ]
    assert not undescribed


def test_the_direction_is_normalised() -> None:
    assert Objective(direction="maximize").loss(3.0) == -3.0
    assert Objective(direction="minimize").loss(3.0) == 3.0
    assert Objective(direction="maximize").is_better(2.0, 1.0)
    assert not Objective(direction="minimize").is_better(2.0, 1.0)
    assert Objective().is_better(math.inf, None)


@contextmanager
def one_line_or_nothing() -> Iterator[None]:
    """Lets a refusal pass if it is one line; any other exception is a defect."""
    message = ""
    try:
        yield
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)
KEYS = [
    "name",
    "backbone",
    "oracle",
    "objective",
    "constraints",
    "algorithm",
    "budget",
    "runtime",
    "tracking",
    "seed",
]
KINDS = st.sampled_from(
    ["analytic", "python", "jpeg", "random", "fast-direct", "inline", "ray", "none", "xtb", "x"]
)
sections = json_values | st.fixed_dictionaries({"kind": KINDS | json_values}, optional={"media": json_values})


@example(changes={"name": None, "\n": None})
@given(changes=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), sections, max_size=4))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_campaign_whatever_it_says_gives_a_traceback(changes: dict[str, Any]) -> None:
    fields = {**yaml.safe_load(MINIMAL), **changes}
    with one_line_or_nothing():
        json.dumps(check_campaign(fields).model_dump(mode="json"))


@given(
    text=st.text(max_size=60)
    | st.builds(lambda a, b: MINIMAL[:a] + b + MINIMAL[a:], st.integers(0, 150), st.text(max_size=5))
)
@example("{a: 0xZZ, 1: 2}")
@example("2001-99-99")
@example("a: 2001-99-99")
@example("a: " + "[" * 3000)
@example("1: 2\n1.0: 3\n")
@settings(max_examples=500, deadline=None)
def test_no_text_whatever_it_is_gives_a_traceback(text: str) -> None:
    with one_line_or_nothing():
        fields, lines = parse_yaml(text, "campaign.yaml")
        check_campaign(fields, lines=lines)


@pytest.mark.parametrize(
    ("section", "key"), [("molecule", "checkpoint"), ("image", "checkpoint"), ("analytic", "data")]
)
def test_a_relative_path_starts_at_the_campaign_file(tmp_path: Path, section: str, key: str) -> None:
    folder = tmp_path / "campaigns"
    folder.mkdir()
    text = MINIMAL.replace("{kind: analytic}", f"{{kind: {section}, {key}: models/mine.bin}}")
    config = load(folder, text)
    assert str(getattr(config.backbone, key)) == str(folder / "models" / "mine.bin")


@pytest.mark.parametrize(
    ("file", "identity"),
    [
        (
            "backbone: {kind: molecule}\noracle: {kind: xtb}\n"
            "constraints: [{kind: structure}, {kind: synthesizability}]\n",
            "f91bcfa6e533543e007153aa59a488562f111876f1988960f4d929a9568b65eb",
        ),
        (
            "backbone: {kind: image}\noracle: {kind: jpeg}\n",
            "e6bf8e5d79d84d7f5230a474ce714df5deb2cfe5d2618ad01fc0712eda2ab581",
        ),
    ],
)
def test_campaigns_that_began_under_version_0_1_can_be_resumed(tmp_path: Path, file: str, identity: str) -> None:
    """A field that was added since has to stand in its component's later_fields, or every old run is refused."""
    assert load(tmp_path, f"{file}budget: {{queries: 16}}\n").identity() == identity
