"""Forgetting in a run directory: gone everywhere, the algorithm as if it had never seen it, the budget spent."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.errors import InputError, RunDirectoryError, StorageError
from pilotwave.execution.receipts import hold, write_receipt
from pilotwave.forgetting.byte_search import files_under, files_with_bytes, files_with_ids
from pilotwave.forgetting.forget_run import forget, plan_forgetting
from pilotwave.forgetting.promise import promised_file
from pilotwave.forgetting.receipt import check_receipt, file_digest
from pilotwave.forgetting.selection import ForgetRequest
from pilotwave.report.results import write_results
from pilotwave.report.run_log import RunLog, Wanted
from pilotwave.samples import MoleculeSample, Sample
from pilotwave.testing.faulty_oracles import score
from pilotwave.testing.runtime_contract import assert_same_state, state_of
from pilotwave.testing.steered_run import SteeredRun, steer
from pilotwave.types import Candidate, Evaluation, Status

GONE = ("p0000-03", "p0001-02", "p0002-00")


def molecules() -> list[Sample]:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    found: list[Sample] = []
    for size in range(1, 25):
        mol = Chem.AddHs(Chem.MolFromSmiles("O" + size * "C" + "NC1CC1"))
        assert rdDistGeom.EmbedMolecule(mol, randomSeed=size) == 0
        found.append(MoleculeSample(Chem.MolToMolBlock(mol), Chem.MolToSmiles(Chem.RemoveHs(mol))))
    return found


def traces_of(candidate: Candidate) -> list[bytes]:
    """Byte strings that only this candidate can have left: its tensors, whole and in part, and its sample."""
    assert candidate.sample is not None
    _, blob = candidate.sample.payload()
    tensors = [tensor for tensor in (candidate.latent, *candidate.noise_sequence) if tensor.any()]
    whole = [tensor.numpy().astype(kind).tobytes() for tensor in tensors for kind in ("<f4", "<f8", "<f2")]
    parts = [candidate.latent.numpy().tobytes()[-12:], candidate.noise_sequence.numpy().tobytes()[:12]]
    middle = blob[len(blob) // 3 :][:60]
    return [*whole, *parts, blob, middle, candidate.sample.identity().encode()]


def next_batch(run: SteeredRun, algorithm: Any) -> torch.Tensor:
    from pilotwave.types import Draw

    proposal = algorithm.ask(6)
    made = proposal.plan.generate(run.backbone, [Draw.of(3, proposal.number, slot) for slot in range(6)])
    latents: torch.Tensor = made.latents
    return latents


ALGORITHMS: list[dict[str, Any]] = [
    {"kind": "trust-direct"},
    {"kind": "fast-direct", "step_size": 0.5},
    {"kind": "casbo"},
    {"kind": "cma-es"},
    {"kind": "flow-direct"},
    {"kind": "noise-search"},
    {"kind": "random"},
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda item: item["kind"])
def test_the_algorithm_is_one_that_never_saw_them_bit_for_bit(tmp_path: Path, algorithm: dict[str, Any]) -> None:
    run = steer(tmp_path / "run", algorithm=algorithm)
    before = run.restored()
    never_saw = run.told_without(GONE)
    forget(run.path, ForgetRequest(GONE))
    restored = run.restored()
    assert_same_state(restored.state_dict(), never_saw.state_dict())
    if algorithm["kind"] != "random":
        with pytest.raises(AssertionError):
            assert_same_state(restored.state_dict(), before.state_dict())
    assert torch.equal(next_batch(run, restored), next_batch(run, never_saw))


def test_a_whole_batch_may_go(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    gone = [f"p0001-{slot:02d}" for slot in range(6)]
    never_saw = run.told_without(gone)
    forget(run.path, ForgetRequest(tuple(gone)))
    assert_same_state(run.restored().state_dict(), never_saw.state_dict())


@pytest.mark.parametrize("media", ["array", "image", "molecule"])
def test_no_byte_of_them_is_left_in_any_file(tmp_path: Path, media: str) -> None:
    samples = molecules() if media == "molecule" else ()
    run = steer(tmp_path / "run", media="image" if media == "image" else "array", samples=samples)
    write_results(run.path)
    (run.path / "results" / "export.csv").write_text(f"query_id\n{GONE[0]}\n")
    write_receipt(run.path / "receipts", Evaluation(GONE[0], Status.OK, 1.0))
    chosen = run.candidates(GONE)
    needles = [trace for candidate in chosen for trace in traces_of(candidate)]
    kept = traces_of(run.candidates(["p0000-00"])[0])
    files = list(files_under(run.path))
    held = {path.relative_to(run.path).parts[0] for path in files_with_bytes(files, needles)}
    assert {"ledger.sqlite", "checkpoints"} <= held
    # The ledger, two checkpoints, the table and the export; a receipt has it in its name as well.
    assert len(files_with_ids(files, GONE)) >= 6
    done = forget(run.path, ForgetRequest(GONE))
    files = list(files_under(run.path))
    assert files_with_bytes(files, [*needles, *(query_id.encode() for query_id in GONE)]) == []
    assert files_with_ids(files, GONE) == []
    assert not [path for path in files if any(query_id in path.name for query_id in GONE)]
    assert done.left == ()
    assert files_with_bytes(files, kept)  # the search does find what is there
    assert {path.name for path in run.path.iterdir()} <= {
        *("campaign.yaml", "ledger.sqlite", "checkpoints", "receipts", "results", "forgotten", ".lock", ".writer")
    }


def test_the_results_are_those_of_the_reduced_ledger(tmp_path: Path) -> None:
    run = steer(tmp_path / "run", samples=molecules())
    write_results(run.path)
    best = max(state_of(run.path).settled.values(), key=lambda item: -(item.value or 0.0)).query_id
    forget(run.path, ForgetRequest((best,)))
    rows = list(csv.DictReader(io.StringIO((run.path / "results" / "evaluations.csv").read_text())))
    assert len(rows) == 23
    assert best not in {row["query_id"] for row in rows}
    made = {path.name: path.read_bytes() for path in (run.path / "results").iterdir()}
    assert set(made) == {"best.sdf", "best.png", "learning_curve.csv", "learning_curve.png", "evaluations.csv"}
    write_results(run.path)
    again = {path.name: path.read_bytes() for path in (run.path / "results").iterdir()}
    assert {name for name in made if made[name] != again[name]} <= {"best.png", "learning_curve.png"}


def test_a_run_without_results_gets_none(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    forget(run.path, ForgetRequest(GONE))
    assert list((run.path / "results").iterdir()) == []


def test_what_was_paid_stays_spent_and_the_campaign_goes_on(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    forget(run.path, ForgetRequest(GONE))
    state = state_of(run.path)
    assert (state.spent, state.forgotten, len(state.reserved), state.answered) == (24, 3, 21, 21)
    assert state.open_queries() == []
    again = campaign_of(run, 24).resume(run.path)
    assert again.outcome.finished
    assert again.outcome.spent == 24
    more = campaign_of(run, 30).resume(run.path)
    assert more.outcome.spent == 30
    state = state_of(run.path)
    assert len(state.reserved) == 27
    assert set(state.reserved).isdisjoint(GONE)
    assert [item.count for item in state.proposals.values()] == [6] * 5


def campaign_of(run: SteeredRun, queries: int) -> Any:
    from pilotwave.campaign import Campaign

    budget = run.config.budget.model_copy(update={"queries": queries})
    chosen = Campaign(run.config.model_copy(update={"budget": budget}))
    _use_the_backbone_of(run)
    return chosen


def _use_the_backbone_of(run: SteeredRun) -> None:
    built = run.config.backbone.build("cpu")
    assert built.fingerprint == run.backbone.fingerprint, "the steered run has its campaign's backbone"


def test_it_can_be_done_twice_and_adds_up(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    never_saw = run.told_without(GONE)
    for query_id in GONE:
        forget(run.path, ForgetRequest((query_id,)))
    assert state_of(run.path).forgotten == 3
    assert len(list((run.path / "forgotten").iterdir())) == 3
    assert_same_state(run.restored().state_dict(), never_saw.state_dict())
    with pytest.raises(InputError, match="expected known query ids, got p0000-03; ids look like p0000-00"):
        forget(run.path, ForgetRequest((GONE[0],)))


def test_the_receipt_says_that_and_not_what(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    write_results(run.path)
    write_receipt(run.path / "receipts", Evaluation(GONE[0], Status.OK, 123.456))
    RunDirectory(run.path)
    digests = {path.name: file_digest(path) for path in files_under(run.path)}
    done = forget(run.path, ForgetRequest(GONE))
    fields = check_receipt(done.path)
    text = done.path.read_text()
    assert files_with_ids([done.path], GONE) == []
    assert "123.456" not in text
    assert done.salt not in text
    assert (fields["kind"], fields["records"], fields["queries"]) == ("query", 3, 3)
    assert len(fields["hashed_ids"]) == 3
    assert fields["files"]["ledger.sqlite"] == [digests["ledger.sqlite"], file_digest(run.path / "ledger.sqlite")]
    table = fields["files"]["results/evaluations.csv"]
    assert table == [digests["evaluations.csv"], file_digest(run.path / "results" / "evaluations.csv")]
    assert [pair[1] for name, pair in fields["files"].items() if name.startswith(("checkpoints", "receipts"))] == [
        None,
        None,
        None,
    ]
    assert not promised_file(run.path).exists()
    changed = json.loads(text)
    changed["records"] = 2
    done.path.write_text(json.dumps(changed))
    with pytest.raises(RunDirectoryError, match="changed after it was signed"):
        check_receipt(done.path)


def test_the_state_digest_depends_on_what_is_left_only(tmp_path: Path) -> None:
    from pilotwave.archive.reduced_ledger import ledger_digest

    run = steer(tmp_path / "run")
    first = ledger_digest(run.path / "ledger.sqlite")
    with sqlite3.connect(run.path / "ledger.sqlite") as raw:
        raw.execute("CREATE INDEX another ON events (time)")
    assert ledger_digest(run.path / "ledger.sqlite") == first
    done = forget(run.path, ForgetRequest(GONE))
    assert done.receipt.state == ledger_digest(run.path / "ledger.sqlite") != first


def test_the_new_ledger_is_append_only_and_goes_on_counting(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    last = state_of(run.path).sequence
    forget(run.path, ForgetRequest(GONE))
    path = run.path / "ledger.sqlite"
    raw = sqlite3.connect(path)
    for table in ("candidates", "events"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(f"DELETE FROM {table}")
    raw.close()
    with Ledger.open(path) as ledger:
        events = list(ledger.events())
        assert [event.kind for event in events if event.sequence > last] == [EventKind.FORGOTTEN]
        assert ledger.append(EventKind.STOPPED, {"reason": "finished"}).sequence == last + 2
        assert CampaignState.of(events).active_seconds < 60.0  # nobody was at work while it was forgotten


def test_a_dry_run_lists_every_place_and_changes_nothing(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    write_results(run.path)
    write_receipt(run.path / "receipts", Evaluation(GONE[0], Status.OK, 1.0))
    before = {path: path.read_bytes() for path in files_under(run.path)}
    plan = plan_forgetting(run.path, ForgetRequest(GONE))
    kinds = [place.kind for place in plan.places]
    assert kinds == ["ledger", "receipt", "checkpoint", "checkpoint", "result", "result", "result"]
    assert {path: path.read_bytes() for path in files_under(run.path)} == before
    held = files_with_ids(before, GONE)
    assert {str(path) for path in held} <= {place.path for place in plan.places}


def test_the_logs_go_and_what_is_left_is_told_from_the_ledger(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    logs = run.path / "logs"
    logs.mkdir()
    for name in ("campaign.jsonl", "campaign.1.jsonl", "evaluator-0.jsonl"):
        (logs / name).write_text(json.dumps({"time": "2026-01-01T00:00:00.000000Z", "query": GONE[0]}) + "\n")
    places = plan_forgetting(run.path, ForgetRequest(GONE)).places
    assert [place.kind for place in places].count("log") == 3
    done = forget(run.path, ForgetRequest(GONE))
    assert done.left == ()
    assert list(files_under(logs)) == []
    told = {line.get("query") for line in RunLog(run.path).last(Wanted("debug"), None)}
    assert "p0000-00" in told
    assert not told & set(GONE)


def test_somebody_elses_file_is_left_and_said(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    notes = run.path / "notes.txt"
    notes.write_text(f"look at {GONE[1]}, and at p0009-99")
    done = forget(run.path, ForgetRequest(GONE))
    assert done.left == (notes,)
    assert [note for note in done.notes if "notes.txt" in note]
    assert notes.exists()


def test_a_driver_at_work_is_not_disturbed(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    before = file_digest(run.path / "ledger.sqlite")
    with (
        RunDirectory(run.path).lock(),
        pytest.raises(RunDirectoryError, match="in use by another pilotwave process"),
    ):
        forget(run.path, ForgetRequest(GONE))
    assert file_digest(run.path / "ledger.sqlite") == before


def test_an_optimizer_or_an_oracle_left_behind_is_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from pilotwave.forgetting import forget_run

    monkeypatch.setattr(forget_run, "_WRITER_SECONDS", 0.2)
    monkeypatch.setattr(forget_run, "_QUIET_SECONDS", 0.2)
    run = steer(tmp_path / "run")
    writer = RunDirectory(run.path).become_writer(1.0)
    with pytest.raises(RunDirectoryError, match="still writes the ledger"):
        forget(run.path, ForgetRequest(GONE))
    os.close(writer)
    oracle = hold(run.path / "receipts")
    with pytest.raises(RunDirectoryError, match="oracle processes of an earlier driver"):
        forget(run.path, ForgetRequest(GONE))
    os.close(oracle)
    forget(run.path, ForgetRequest(GONE))


def test_a_log_that_a_killed_driver_left_is_taken_in_first(tmp_path: Path) -> None:
    run = steer(tmp_path / "run")
    path = run.path / "ledger.sqlite"
    killed = Ledger.open(path)
    killed.append(EventKind.STOPPED, {"reason": "late"})
    wal = path.with_name("ledger.sqlite-wal")
    left = {item: item.read_bytes() for item in (path, wal)}
    killed.close()
    for item, content in left.items():
        item.write_bytes(content)
    forget(run.path, ForgetRequest(GONE))
    assert state_of(run.path).stopped == "late"
    assert not wal.exists()
    assert files_with_ids(files_under(run.path), GONE) == []


def test_a_reader_that_holds_the_log_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotwave.archive import reduced_ledger

    monkeypatch.setattr(reduced_ledger, "_BUSY_MILLISECONDS", 100)
    run = steer(tmp_path / "run")
    path = run.path / "ledger.sqlite"
    writer = Ledger.open(path)
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    writer.close()
    with pytest.raises(StorageError, match="end what reads it"):
        forget(run.path, ForgetRequest(GONE))
    reader.close()
    forget(run.path, ForgetRequest(GONE))


def test_open_and_failed_queries_can_go_too(tmp_path: Path) -> None:
    def judge(sample: Sample, number: int) -> float | None:
        return None if number % 3 == 0 else score(sample)

    run = steer(tmp_path / "run", judge=judge)
    failed = [query_id for query_id, item in state_of(run.path).settled.items() if item.value is None]
    assert len(failed) == 8
    with Ledger.open(run.path / "ledger.sqlite") as ledger:
        ledger.append(EventKind.ASKED, {"proposal": 4, "count": 2})
        spare = ledger.candidates(["p0000-01", "p0000-02"])
        made = [dataclasses.replace(item, query_id=f"p0004-0{i}", proposal=4) for i, item in enumerate(spare)]
        record = {"proposal": 4, "passes": 1, "seconds": 0.1}
        names = [item.query_id for item in made]
        ledger.add_candidates(made, {**record, "query_ids": names, "feasible": names})
        ledger.append(EventKind.RESERVED, {"query_id": "p0004-00", "attempt": 1})
    gone: Sequence[str] = (failed[0], "p0004-00")
    forget(run.path, ForgetRequest(tuple(gone)))
    state = state_of(run.path)
    assert (state.failed, state.forgotten, state.spent) == (7, 2, 25)
    assert state.open_queries() == ["p0004-01"]
    never_asked = forget(run.path, ForgetRequest(("p0004-01",)))
    assert never_asked.receipt.queries == 0
    assert state_of(run.path).spent == 25


def test_no_run_is_one_clear_line(tmp_path: Path) -> None:
    for call in (forget, plan_forgetting):
        with pytest.raises(RunDirectoryError, match="no run here"):
            call(tmp_path / "nothing", ForgetRequest(GONE))
    assert not (tmp_path / "nothing").exists()
