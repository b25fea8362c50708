from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pilotwave.errors import ConfigError
from pilotwave.tuning.checks import check_campaigns, in_words, samples_of
from pilotwave.tuning.config import StudyConfig, load_study, study_schema, to_yaml
from pilotwave.tuning.plans import plan_trial

ROOT = Path(__file__).resolve().parents[4]


def fields(**changes: Any) -> dict[str, Any]:
    campaign = {
        "name": "base",
        "backbone": {"kind": "analytic", "dim": 4, "steps": 4},
        "oracle": {"kind": "python", "function": "score.py:score", "version": "1"},
        "objective": {"direction": "minimize"},
        "budget": {"queries": 48, "batch_size": 8},
    }
    search = {"algorithm.radius": {"uniform": [0.1, 0.6]}}
    study = {"campaign": {**campaign, "algorithm": {"kind": "noise-search"}}, "search": search, "target": 1.0}
    return {**study, **changes}


def load(folder: Path, **changes: Any) -> StudyConfig:
    path = folder / "study.yaml"
    (folder / "score.py").write_text("def score(sample): return 0.0")
    path.write_text(yaml.safe_dump(fields(**changes), sort_keys=False))
    study = load_study(path)
    check_campaigns(study, "study.yaml")
    return study


SECTIONS = {"choice": [{"kind": "random"}, {"kind": "noise-search"}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"algorithm.radios": {"choice": [1]}}}, "algorithm.radios: unknown key; did you mean 'radius'"),
        ({"search": {"algoritm.radius": {"choice": [1]}}}, "no field 'algoritm'; did you mean 'algorithm'"),
        ({"search": {"seed": {"choice": [1]}}}, "seed cannot be varied.*study's seeds"),
        ({"search": {"runtime.address": {"choice": ["auto"]}}}, "runtime.address cannot be varied"),
        ({"search": {"objective.direction": {"choice": ["maximize"]}}}, "objective cannot be varied"),
        ({"search": {"algorithm": SECTIONS, "algorithm.radius": {"choice": [0.2]}}}, "say when it counts"),
        ({"search": {"algorithm": {"choice": [{"kind": "rundom"}]}}}, "'rundom'; did you mean 'random'"),
        ({"search": {"backbone.steps": {"integer": [0, 4]}}}, "with backbone.steps=0"),
        ({"search": {"backbone.steps": {"choice": [4]}}, "searcher": "grid", "samples": 3}, "remove samples"),
        ({"searcher": "grid"}, "algorithm.radius is a range"),
        ({"sedes": [1]}, "sedes: unknown key; did you mean 'seeds'"),
        ({"target": {"at_least": 1.0}}, "is to minimize, so expected at_most, got at_least: 1"),
        ({"target": {"at_least": 1.0, "at_most": 2.0}}, "expected a number"),
        ({"target": None, "objective": "queries_to_target"}, "'base' has none"),
        ({"objective": "level"}, "level looks at no target"),
        ({"budget": 40}, "40 questions are not enough for one trial, which may ask 48"),
        ({"seeds": [1, 1]}, "the seed 1 is said twice"),
        ({"seeds": [-1]}, "expected numbers from 0"),
        ({"tasks": {"a b": {}}}, "a task's name"),
        ({"tasks": {"a": {"set": {"orcale.attempts": 3}}}}, "tasks.a.set.orcale.attempts: .*did you mean 'oracle'"),
        ({"scheduler": {"kind": "asha", "grace": 12}}, "multiple of every \\(8\\)"),
        ({"scheduler": {"kind": "asha", "grace": 48}}, "below the queries of a campaign"),
        ({"scheduler": {"kind": "asha", "every": 64}}, "a campaign has only 48"),
        ({"tracking": {"kind": "mlflwo"}}, "did you mean 'mlflow'"),
        ({"campaign": "nowhere.yaml"}, "campaign: no such file"),
        ({"search": {}}, "search"),
        ({"samples": 0}, "samples"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_paid(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_a_grid_that_is_too_large_is_refused(tmp_path: Path) -> None:
    search = {
        f"oracle.{name}": {"choice": list(range(1, 20))} for name in ("attempts", "time_limit", "recycle_after")
    }
    search["oracle.backoff_seconds"] = {"choice": [0, 1]}
    with pytest.raises(ConfigError, match="13718 combinations, expected at most 10000"):
        load(tmp_path, search=search, searcher="grid")
    small = {"backbone.steps": {"choice": [2, 3, 4]}}
    with pytest.raises(ConfigError, match="3 trials may ask 144 questions, and the budget is 100"):
        load(tmp_path, search=small, searcher="grid", scheduler="none", budget=100)


def test_answers_must_not_be_taken_from_other_trials(tmp_path: Path) -> None:
    base = fields()["campaign"]
    with pytest.raises(ConfigError, match=r"cannot be compared; set archive\.reuse: off"):
        load(tmp_path, campaign={**base, "archive": {"path": "archive"}})
    load(tmp_path, campaign={**base, "archive": {"path": "archive", "reuse": "off"}})


def test_a_trial_has_a_campaign_for_every_task_and_seed(tmp_path: Path) -> None:
    tasks = {
        "near": {"target": 2.0},
        "far": {"set": {"objective.direction": "maximize"}, "target": {"at_least": 9}},
    }
    study = load(tmp_path, tasks=tasks, seeds=[3, 5])
    plan = plan_trial(study, 1, {"algorithm.radius": 0.2})
    told = [(each.task, each.config.seed, each.target, each.config.objective.direction) for each in plan.campaigns]
    assert told == [
        ("near", 3, 2.0, "minimize"),
        ("near", 5, 2.0, "minimize"),
        ("far", 3, -9.0, "maximize"),
        ("far", 5, -9.0, "maximize"),
    ]
    assert {each.config.algorithm.model_dump()["radius"] for each in plan.campaigns} == {0.2}
    assert (plan.cost, plan.queries, plan.every) == (4 * 48, 48, 8)
    function = plan.campaigns[0].config.oracle.model_dump()["function"]
    assert function == f"{tmp_path.resolve()}/score.py:score"  # as the study's file means it, wherever it is read


def test_a_study_that_is_written_down_is_the_same_study(tmp_path: Path) -> None:
    study = load(tmp_path, tasks={"near": {"target": {"at_most": 2.0}}})
    other = tmp_path / "elsewhere" / "study.yaml"
    other.parent.mkdir()
    other.write_text(to_yaml(study))
    again = load_study(other)
    assert again.identity() == study.identity()
    assert plan_trial(again, 1, {}) == plan_trial(study, 1, {})
    more = load_study(other, ["samples=99", "budget=5000", "concurrent_trials=7"])
    assert more.identity() == study.identity()
    assert load_study(other, ["campaign.budget.queries=64"]).identity() != study.identity()


def test_the_example_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study = load_study(Path("examples/study.yaml"))
    plan = check_campaigns(study, "examples/study.yaml")
    assert len(plan.campaigns) == 4
    assert samples_of(study) == 9


def test_the_schema_of_a_study_accepts_what_is_valid(tmp_path: Path) -> None:
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(yaml.safe_load((ROOT / "examples" / "study.yaml").read_text()))
    assert validator.is_valid(fields(target={"at_most": 1.0}, searcher={"kind": "grid"}, scheduler="none"))
    assert not validator.is_valid(fields(sedes=[1]))
    assert not validator.is_valid(fields(search={"algorithm.radius": {"unifrom": [0, 1]}}))
    undescribed = [name for name, field in schema["properties"].items() if "description" not in field]
    assert not undescribed


def test_a_point_in_words() -> None:
    point = {"algorithm": {"kind": "dno", "step_size": 0.123456}, "backbone.steps": 5}
    assert in_words(point) == "algorithm=dno(step_size=0.1235), backbone.steps=5"
