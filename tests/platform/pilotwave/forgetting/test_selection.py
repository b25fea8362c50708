"""Which records a request is about, and which go with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.project import run_id_of
from pilotwave.errors import InputError
from pilotwave.forgetting.selection import ForgetRequest, select
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.testing.steered_run import SteeredRun, steer
from pilotwave.types import Evaluation, Status


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SteeredRun:
    """Queries 0, 3, 6 and so on were answered by alice, the others by bob; query 5 failed."""
    return steer(
        tmp_path_factory.mktemp("run") / "run",
        algorithm={"kind": "random"},
        judge=lambda sample, number: None if number == 5 else 1.5 * number,
        worker=lambda number: "bob" if number % 3 else "alice",
    )


@pytest.fixture
def copied(tmp_path: Path) -> SteeredRun:
    return steer(tmp_path / "run", algorithm={"kind": "random"}, batches=2)


def ids(run: SteeredRun, **request: str | Sequence[str]) -> tuple[str, ...]:
    wanted = {**request, "queries": tuple(request.get("queries", ()))}
    return select(RecordedRun.read(run.path), ForgetRequest(**wanted)).ids  # type: ignore[arg-type]


def named(numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"p{number // 6:04d}-{number % 6:02d}" for number in numbers)


def test_by_query_in_the_order_made(run: SteeredRun) -> None:
    assert ids(run, queries=["p0003-01", "p0000-02", "p0003-01"]) == ("p0000-02", "p0003-01")


def test_by_contributor(run: SteeredRun) -> None:
    assert ids(run, contributor="alice") == named(range(0, 24, 3))


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ("value > 30", range(21, 24)),
        ("worker = 'alice' AND proposal = 1", [6, 9]),
        ("status = 'failed'", [5]),
        ("status <> 'ok' OR value < 3", [0, 1, 5]),
        ("started >= '2025-10-09 09:03:20' AND started < '2025-10-09 09:05:20'", [10, 11]),
        ("query_id LIKE 'p0002-%' -- a comment", range(12, 18)),
        ("media = 'array' and failure_stage is null and label like 'array%' and seed >= 0 and cost = 1", range(24)),
    ],
)
def test_by_condition(run: SteeredRun, where: str, numbers: Sequence[int]) -> None:
    assert ids(run, where=where) == named(numbers)


@pytest.mark.parametrize(
    "where",
    [
        "valu > 3",
        "value >",
        "1); DROP TABLE records; --",
        "query_id IN (SELECT name FROM sqlite_master) OR load_extension('x')",
        "(SELECT 1 FROM pragma_database_list)",
        "",
        "\x00",
    ],
)
def test_what_is_no_condition_is_one_clear_line(run: SteeredRun, where: str) -> None:
    with pytest.raises(
        InputError, match=r"--where: expected a condition in SQL on query_id, proposal.*for example"
    ):
        ids(run, where=where)


def test_a_condition_cannot_write_a_file(run: SteeredRun, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--where"):
        ids(run, where=f"1) ; ATTACH '{tmp_path / 'made'}' AS made; --")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"queries": ["p0009-00", "p0000-00"]}, "expected known query ids, got p0009-00; ids look like p0000-00"),
        ({"contributor": "carol"}, "expected records of 'carol', found none; answers came from alice, bob"),
        ({"where": "value > 1e9"}, "no record matches 'value > 1e9'; nothing was forgotten"),
        ({"campaign": "contract"}, "--campaign is for a project archive"),
        ({}, "expected exactly one of --query"),
        ({"where": "1", "contributor": "alice"}, "expected exactly one of --query"),
    ],
)
def test_what_matches_nothing_is_one_clear_line(run: SteeredRun, request_: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ids(run, **request_)


def test_everything_of_a_campaigns_contributor(copied: SteeredRun) -> None:
    path = copied.path / "campaign.yaml"
    path.write_text(path.read_text().replace("archive: null", "archive: {path: nowhere, contributor: dora}"))
    assert ids(copied, contributor="dora") == named(range(12))
    assert ids(copied, contributor="evaluator-0") == named(range(0, 12, 2))


def test_a_worker_whose_attempt_failed_is_named_in_the_record(copied: SteeredRun) -> None:
    with Ledger.open(copied.path / "ledger.sqlite") as ledger:
        ledger.settle(EventKind.ATTEMPTED, Evaluation("p0001-03", Status.FAILED, worker="erin"))
    assert ids(copied, contributor="erin") == ("p0001-03",)


def test_answers_taken_from_them_go_too(copied: SteeredRun) -> None:
    spare = copied.candidates(["p0000-00", "p0000-01", "p0000-02"])
    with Ledger.open(copied.path / "ledger.sqlite") as ledger:
        made = [dataclasses.replace(item, query_id=f"p0002-0{i}", proposal=2) for i, item in enumerate(spare)]
        names = [item.query_id for item in made]
        ledger.append(EventKind.ASKED, {"proposal": 2, "count": 3})
        record = {"proposal": 2, "query_ids": names, "feasible": names, "passes": 1, "seconds": 0.1}
        ledger.add_candidates(made, record)
        sources = ("p0000-00", f"{run_id_of(ledger)}/p0002-00", "other-run/p0000-00")
        for name, source in zip(names, sources, strict=True):
            ledger.settle(EventKind.SETTLED, Evaluation(name, Status.OK, 1.0, reused_from=source))
        warm = dataclasses.replace(spare[0], query_id="w0001", proposal=-1)
        ledger.remember(
            [warm], [Evaluation("w0001", Status.OK, 2.0, worker="zoe", reused_from="other-run/p0000-01")]
        )
    found = select(RecordedRun.read(copied.path), ForgetRequest(("p0000-00",)))
    assert found.ids == ("p0000-00", "p0002-00", "p0002-01")
    assert (found.named, found.reused, found.repeats, found.paid) == (1, 2, 0, 1)
    assert ids(copied, queries=["other-run/p0000-00"]) == ("p0002-02",)
    assert ids(copied, queries=["other-run/p0000-01", "p0000-05"]) == ("p0000-05", "w0001")
    assert ids(copied, contributor="zoe") == ("w0001",)
    assert ids(copied, where="reused_from LIKE 'other-run/%'") == ("p0002-02", "w0001")


def test_candidates_turned_down_as_the_same_sample_go_too(copied: SteeredRun) -> None:
    first, second = copied.candidates(["p0000-00", "p0000-01"])
    with Ledger.open(copied.path / "ledger.sqlite") as ledger:
        repeat = "repeat: its answer is known or on its way"
        made = [
            dataclasses.replace(first, query_id="p0002-00", proposal=2, infeasible=repeat),
            dataclasses.replace(second, query_id="p0002-01", proposal=2, infeasible=repeat),
            dataclasses.replace(second, query_id="p0002-02", proposal=2),
        ]
        names = [item.query_id for item in made]
        ledger.append(EventKind.ASKED, {"proposal": 2, "count": 1})
        record = {"proposal": 2, "query_ids": names, "feasible": names[2:], "passes": 1, "seconds": 0.1}
        ledger.add_candidates(made, record)
    assert ids(copied, queries=["p0000-00"]) == ("p0000-00", "p0002-00")
    assert ids(copied, queries=["p0000-01"]) == ("p0000-01",)  # another answer keeps the sample
    assert ids(copied, queries=["p0000-01", "p0002-02"]) == ("p0000-01", "p0002-01", "p0002-02")
    assert ids(copied, where="status = 'infeasible'") == ("p0002-00", "p0002-01")
