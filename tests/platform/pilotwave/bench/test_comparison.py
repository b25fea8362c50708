"""A comparison as a whole: resumed, summed up, written down; and settings chosen on held-out tasks."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave.bench import tables
from pilotwave.bench.comparison import Comparison, Progress, compare
from pilotwave.bench.methods import Method, parse_method
from pilotwave.bench.results import write_results
from pilotwave.bench.run import RunRequest
from pilotwave.bench.spread import Done, InlineSpread, RunFailure, Watch, attempt, open_spread
from pilotwave.bench.store import RunStore
from pilotwave.bench.summary import curves_of, summarise
from pilotwave.bench.task import Suite
from pilotwave.bench.tuning import candidates, choose, merge, read_chosen, read_grids, tuned, write_chosen
from pilotwave.config import registry
from pilotwave.errors import ConfigError, InputError

FAST = Method("fast-direct", {"scores": "standardised", "step_size": 1.0}, "fast")


def comparison(small: Suite, output: Path, **changes: Any) -> Comparison:
    tasks = tuple(small.find(name) for name in ("target", "bright"))
    base = Comparison(small, tasks, (Method("random"), FAST), (0, 1), 48, output)
    return dataclasses.replace(base, **changes)


class Counting(InlineSpread):
    def __init__(self, give_up_after: int | None = None) -> None:
        self.done: list[tuple[str, str, int]] = []
        self._give_up_after = give_up_after

    def run(self, requests: Sequence[RunRequest], watch: Watch) -> Iterator[Done]:
        for ended in super().run(requests, watch):
            if self._give_up_after == len(self.done):
                raise KeyboardInterrupt
            self.done.append(ended[0].key)
            yield ended


def test_an_interrupted_comparison_goes_on_and_does_no_run_twice(small: Suite, tmp_path: Path) -> None:
    whole = compare(comparison(small, tmp_path / "whole"), InlineSpread(), lambda progress: None)
    first, second, third = Counting(give_up_after=3), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        compare(comparison(small, tmp_path / "parts"), first, lambda progress: None)
    seen: list[Progress] = []
    outcome = compare(comparison(small, tmp_path / "parts"), second, seen.append)
    assert len(first.done) == 3
    assert len(second.done) == 5
    assert not set(first.done) & set(second.done)
    assert (seen[0].done, seen[0].found, seen[0].total) == (3, 3, 8)
    assert seen[-1].done == 8
    means = [[batch["mean"] for batch in record["batches"]] for record in outcome.records]
    assert means == [[batch["mean"] for batch in record["batches"]] for record in whole.records]
    compare(comparison(small, tmp_path / "parts"), third, lambda progress: None)
    assert not third.done
    compare(comparison(small, tmp_path / "parts", anew=True), third, lambda progress: None)
    assert len(third.done) == 8


def test_a_damaged_or_other_file_counts_as_no_run(small: Suite, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    request = RunRequest("small", "target", FAST, 0, 16)
    record = attempt(request)
    assert not isinstance(record, RunFailure)
    store.write(request, record)
    assert store.read(request) == record
    assert store.read(dataclasses.replace(request, queries=24)) is None
    other = Method("fast-direct", {**FAST.settings, "step_size": 2.0}, "fast")
    assert store.read(dataclasses.replace(request, method=other)) is None
    path = store.path(request)
    path.write_text(path.read_text()[:-20])
    assert store.read(request) is None


def test_a_run_that_raises_is_told_in_one_line_and_the_others_go_on(small: Suite, tmp_path: Path) -> None:
    broken = dataclasses.replace(small.find("bright"), objective=lambda: 1 / 0)
    tasks = (*small.tasks[:1], broken, *small.tasks[2:])
    object.__setattr__(small, "tasks", tasks)  # as a plug-in's mistake would be
    store = RunStore(tmp_path)
    for task in small.tasks[:1]:
        attempt(RunRequest("small", task.name, FAST, 0, 16))
    reference = attempt(RunRequest("small", "target", FAST, 0, 16))
    assert not isinstance(reference, RunFailure)
    from pilotwave.bench.loop import Reference

    store.write_reference(broken, "cpu", Reference(0.0, 1.0, 1))
    chosen = comparison(small, tmp_path, tasks=(small.tasks[0], broken), seeds=(0,))
    outcome = compare(chosen, InlineSpread(), lambda progress: None)
    assert [request.task for request, _ in outcome.failures] == ["bright", "bright"]
    assert outcome.failures[0][1] == "ZeroDivisionError: division by zero"
    assert {record["task"] for record in outcome.records} == {"target"}


def test_results_agree_with_the_records(small: Suite, tmp_path: Path) -> None:
    whole = comparison(small, tmp_path, seeds=(0, 1, 2), queries=64)
    outcome = compare(whole, InlineSpread(), lambda progress: None)
    results = write_results(whole, outcome.records)
    assert not results.missing
    assert set(results.files) == {"table", "figures", "batches", "curves", "by passes"}
    figures = json.loads(results.files["figures"].read_text())
    found = figures["tasks"]["target"]["fast"]
    mine = [record for record in outcome.records if record["task"] == "target" and record["method"] == "fast"]
    scale = mine[0]["reference"]
    last = np.mean([record["batches"][-1]["mean"] for record in mine])
    assert found["curve"][-1] == pytest.approx((last - scale["mean"]) / scale["spread"])
    assert found["levels"]["64"]["value"] == pytest.approx(found["curve"][-1])
    assert found["passes_per_query"] == pytest.approx((1 + 8) / 2)
    assert found["ratios"]["paper"]["value"] >= 2
    assert figures["tasks"]["target"]["random"]["ratios"] == {}
    table = results.files["table"].read_text()
    assert "### Over 2 tasks" in table
    assert "`target`" in table
    assert results.files["curves"].read_bytes().startswith(b"\x89PNG")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(io.BytesIO(results.files["batches"].read_bytes())).to_pylist()
    assert len(rows) == 2 * 2 * 3 * 8
    assert rows[0]["level"] == pytest.approx((rows[0]["mean"] - scale["mean"]) / scale["spread"])


def test_runs_of_unequal_length_share_their_queries(small: Suite) -> None:
    records = [attempt(RunRequest("small", "target", FAST, seed, 32)) for seed in range(2)]
    assert not any(isinstance(record, RunFailure) for record in records)
    short: Any = records[1]
    short["batches"] = short["batches"][:2]
    curves = curves_of(records)  # type: ignore[arg-type]
    assert curves.queries.tolist() == [8, 16, 24, 32]
    assert curves.levels[1, 1] == curves.levels[1, 3]
    early = curves_of([short])
    assert early.queries.tolist() == [8, 16, 32]
    assert early.levels[0, 1] == early.levels[0, 2]
    short["batches"] = []
    assert curves_of(records).levels[1].tolist() == [0, 0, 0, 0]  # type: ignore[arg-type]
    assert summarise(records, "random").cells["target"]["fast"].ratios == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random", Method("random")),
        ("fast-direct:step_size=0.3", Method("fast-direct", {"step_size": 0.3}, "fast-direct-step_size-0.3")),
        (
            "mine=fast-direct:scores=standardised, max_repetitions=2",
            Method("fast-direct", {"scores": "standardised", "max_repetitions": 2}, "mine"),
        ),
        ("flow-direct:field_size=null", Method("flow-direct", {"field_size": None}, "flow-direct-field_size-null")),
    ],
)
def test_methods_are_read_from_the_command_line(text: str, expected: Method) -> None:
    assert parse_method(text) == expected


def test_wrong_methods_are_refused_with_a_hint() -> None:
    for text in ("", "a b", "fast-direct:", "fast-direct:step_size", "x=y=z"):
        with pytest.raises(InputError, match="--method"):
            parse_method(text)
    with pytest.raises(ConfigError, match="did you mean 'step_size'"):
        Method("fast-direct", {"stepsize": 1.0}).config()
    with pytest.raises(ConfigError, match="did you mean 'fast-direct'"):
        Method("fast-dirct").config()


def test_every_setting_that_is_tried_is_valid_and_every_method_has_as_many() -> None:
    grids = read_grids()
    for suite in ("analytic", "images", "molecules"):
        for kind in registry.choices("algorithm"):
            tried = candidates(kind, suite, grids)
            assert len(tried) in ((0,) if kind in grids.untuned else (grids.points,))
            for method in tried:
                method.config()
    assert not set(grids.untuned) & set(grids.settings)
    with pytest.raises(InputError, match=r"grids\.yaml"):
        candidates("of-a-plug-in", "analytic", grids)


def test_the_best_setting_on_held_out_tasks_is_chosen_and_used(small: Suite, tmp_path: Path) -> None:
    bad, good = ({"scores": "standardised", "step_size": size} for size in (1e-6, 1.0))
    methods = (Method("fast-direct", bad, "fast-direct-0"), Method("fast-direct", good, "fast-direct-1"))
    tuning = comparison(small, tmp_path, tasks=small.held_out, methods=methods, seeds=(10_000,))
    outcome = compare(tuning, InlineSpread(), lambda progress: None)
    chosen = choose(small, small.held_out, methods, outcome.records)
    found = chosen["groups"]["clusters"]["fast-direct"]
    assert found["chosen"] == good
    assert [entry["score"] for entry in found["tried"]][1] == 1.0
    write_chosen(merge(None, chosen), tmp_path / "tuned.json")
    read = read_chosen(tmp_path / "tuned.json")
    assert read == chosen
    assert tuned(Method("fast-direct"), small.tasks[0], read).settings == good
    assert tuned(FAST, small.tasks[0], read) == FAST
    assert tuned(Method("random"), small.tasks[0], read) == Method("random")
    other = {"suite": "small", "groups": {"clusters": {"casbo": {"chosen": {}}}}}
    assert set(merge(other, chosen)["groups"]["clusters"]) == {"casbo", "fast-direct"}
    requests = comparison(small, tmp_path, methods=(Method("fast-direct"),), chosen=read).requests()
    assert all(request.method.settings == good for request in requests)
    assert read_chosen(tmp_path / "missing.json") is None
    (tmp_path / "wrong.json").write_text("[]")
    with pytest.raises(InputError, match="--tune"):
        read_chosen(tmp_path / "wrong.json")


def test_one_worker_needs_nothing_else() -> None:
    assert isinstance(open_spread(1, "local"), InlineSpread)


def test_a_measure_that_some_batches_lack_keeps_its_place() -> None:
    full, poor = {"distance": (0.5, 0.9), "fresh": (0.7, 1.0)}, {"fresh": (0.1, 1.0)}
    assert tables._names([poor, full]) == ["distance", "fresh"]
    assert tables._median_pair([poor, full], ["distance", "fresh"]) == (0.5, 0.9)
    assert tables._median_pair([poor], ["distance"]) is None
