"""Forgetting that reaches the project archive: from a run's directory, and in the archive itself."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.project import ProjectArchive, records_of_run, run_id_of
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InfrastructureError, InputError
from pilotwave.forgetting import archive_records
from pilotwave.forgetting.answers import answers_of_archive
from pilotwave.forgetting.archive_records import remove_from_archive, select_from_archive
from pilotwave.forgetting.byte_search import files_under, files_with_bytes
from pilotwave.forgetting.forget_run import finish_promised_forgetting, forget, plan_forgetting
from pilotwave.forgetting.selection import ForgetRequest
from pilotwave.testing.killed_child import killed_before_touch, spread_moments, touches
from pilotwave.testing.runtime_contract import state_of
from pilotwave.testing.steered_run import SteeredRun, steer
from pilotwave.types import Evaluation, Status

GONE = ("p0000-03", "p0001-02")


@dataclasses.dataclass(frozen=True)
class Project:
    """Two runs and the archive that both wrote to: alice's and bob's."""

    folder: Path
    first: SteeredRun
    second: SteeredRun

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def run_id(self, run: SteeredRun) -> str:
        with Ledger.open(run.path / "ledger.sqlite", read_only=True) as ledger:
            return run_id_of(ledger)

    def held(self) -> list[str]:
        with ProjectArchive.open(self.archive, read_only=True) as archive:
            return sorted(archive.table(columns=["record_id"]).column("record_id").to_pylist())

    def moved(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder)
        runs = [dataclasses.replace(run, path=folder / run.path.name) for run in (self.first, self.second)]
        for run in runs:
            text = (run.path / "campaign.yaml").read_text()
            (run.path / "campaign.yaml").write_text(text.replace(str(self.folder), str(folder)))
        return Project(folder, *runs)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("made") / "project"
    runs = []
    for name, contributor in (("first", "alice"), ("second", "bob's")):
        section = {"path": str(folder / "archive"), "contributor": contributor}
        runs.append(steer(folder / name, batches=3, archive=section, seed=len(name)))
    with Ledger.open(runs[0].path / "ledger.sqlite", read_only=True) as ledger:
        first_id = run_id_of(ledger)
    # The second run takes one answer of the first, and is paid for nothing there.
    with Ledger.open(runs[1].path / "ledger.sqlite") as ledger:
        item = dataclasses.replace(runs[0].candidates([GONE[0]])[0], query_id="p0003-00", proposal=3)
        ledger.append(EventKind.ASKED, {"proposal": 3, "count": 1})
        record = {"proposal": 3, "query_ids": ["p0003-00"], "feasible": ["p0003-00"], "passes": 1, "seconds": 0.1}
        ledger.add_candidates([item], record)
        taken = Evaluation("p0003-00", Status.OK, 1.0, reused_from=f"{first_id}/{GONE[0]}")
        ledger.settle(EventKind.SETTLED, taken)
    with ProjectArchive.create(folder / "archive", latents="float32") as archive:
        archive.append(list(records_of_run(RunDirectory(runs[0].path), "alice")))
        archive.compact()
        archive.append(list(records_of_run(RunDirectory(runs[1].path), "bob's")))
    return Project(folder, *runs)


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    return made.moved(tmp_path / "project")


def needles(project: Project) -> list[bytes]:
    chosen = project.first.candidates(GONE)
    run_id = project.run_id(project.first)
    return [
        *(f"{run_id}/{query_id}".encode() for query_id in GONE),
        *(item.latent.numpy().tobytes() for item in chosen),
        *(item.noise_sequence[0].numpy().tobytes() for item in chosen),
        *(item.sample.payload()[1] for item in chosen if item.sample is not None),
    ]


def test_a_runs_records_leave_the_archive_with_what_was_taken_from_them(project: Project) -> None:
    wanted = needles(project)
    own, other = project.run_id(project.first), project.run_id(project.second)
    assert len(project.held()) == 37
    assert files_with_bytes(files_under(project.archive), wanted)
    plan = plan_forgetting(project.first.path, ForgetRequest(GONE))
    assert [place.what for place in plan.places if place.kind == "archive"] == ["3 records to go"]
    taken = [(place.path, place.what) for place in plan.places if place.kind == "run"]
    assert taken == [(str(project.second.path), "1 answer taken from these, to go first")]
    assert plan.other_runs == {}
    done = forget(project.first.path, ForgetRequest(GONE))
    held = project.held()
    assert len(held) == 34
    assert {f"{own}/{query_id}" for query_id in GONE}.isdisjoint(held)
    assert f"{other}/p0003-00" not in held
    assert f"{other}/p0000-03" in held
    assert files_with_bytes(files_under(project.archive), wanted) == []
    assert files_with_bytes(files_under(project.first.path), wanted) == []
    assert done.receipt.archive is not None
    assert done.receipt.archive["removed"] == 2  # the one that was taken went before, with its run
    assert done.receipt.archive["digest_before"] != done.receipt.archive["digest_after"]
    (note,) = done.notes
    assert "had taken 1 answer from these and forgot them" in note
    with ProjectArchive.open(project.archive) as archive:
        assert archive.verify() == []
        assert archive.append(list(records_of_run(RunDirectory(project.first.path), "alice"))) == []
    assert "p0003-00" not in state_of(project.second.path).settled
    assert files_with_bytes(files_under(project.folder), wanted) == []
    assert len(list((project.second.path / "forgotten").iterdir())) == 1


def test_a_run_that_lies_elsewhere_is_named_and_forgets_by_the_source(project: Project, tmp_path: Path) -> None:
    own, other = project.run_id(project.first), project.run_id(project.second)
    elsewhere = shutil.move(project.second.path, tmp_path / "elsewhere")
    assert plan_forgetting(project.first.path, ForgetRequest(GONE)).other_runs == {other: 1}
    done = forget(project.first.path, ForgetRequest(GONE))
    assert [note for note in done.notes if other in note]
    forget(elsewhere, ForgetRequest((f"{own}/{GONE[0]}",)))
    assert "p0003-00" not in state_of(elsewhere).settled


def test_a_run_at_work_that_took_them_stops_it_before_anything_is_promised(project: Project) -> None:
    before = (project.first.path / "ledger.sqlite").read_bytes()
    with RunDirectory(project.second.path).lock(), pytest.raises(InputError, match="second is in use by another"):
        forget(project.first.path, ForgetRequest(GONE))
    assert (project.first.path / "ledger.sqlite").read_bytes() == before
    assert len(project.held()) == 37


def test_everything_of_the_campaigns_contributor(project: Project) -> None:
    forget(project.first.path, ForgetRequest(contributor="alice"))
    assert {name.rpartition("/")[0] for name in project.held()} == {project.run_id(project.second)}
    state = state_of(project.first.path)
    assert (state.spent, state.forgotten, state.answered) == (18, 18, 0)


def test_kills_while_the_archive_is_written(project: Project, tmp_path: Path) -> None:
    wanted = needles(project)
    counted = project.moved(tmp_path / "counted")
    number = touches(lambda: forget(counted.first.path, ForgetRequest(GONE)), counted.archive)
    assert number > 10
    for place, moment in enumerate(spread_moments(8, number, seed=2)):
        copied = project.moved(tmp_path / f"copy-{place}")
        assert killed_before_touch(
            moment,
            lambda copied=copied: forget(copied.first.path, ForgetRequest(GONE)),  # type: ignore[misc]
            copied.archive,
        )
        assert state_of(copied.first.path).spent == 18
        finish_promised_forgetting(copied.second.path)
        if finish_promised_forgetting(copied.first.path) is None:
            forget(copied.first.path, ForgetRequest(GONE))
        assert len(copied.held()) == 34
        assert files_with_bytes(files_under(copied.folder), wanted) == []


def test_answers_that_were_added_by_hand_under_a_name(project: Project, tmp_path: Path) -> None:
    lone = steer(tmp_path / "lone" / "run", batches=1, seed=77)
    for place in (lone.path.parent / "archive", tmp_path / "elsewhere"):
        with ProjectArchive.create(place, latents="float16") as archive:
            archive.append(list(records_of_run(RunDirectory(lone.path), "dora"))[:4])
    done = forget(lone.path, ForgetRequest(("p0000-00",)))
    assert done.receipt.archive is not None
    with ProjectArchive.open(tmp_path / "lone" / "archive", read_only=True) as archive:
        assert len(archive) == 3
    done = forget(lone.path, ForgetRequest(contributor="dora"), tmp_path / "elsewhere")
    assert done.receipt.records == 3
    with ProjectArchive.open(tmp_path / "elsewhere", read_only=True) as archive:
        assert len(archive) == 1
    with pytest.raises(InputError, match="--archive: expected a project archive, there is none at"):
        forget(lone.path, ForgetRequest(("p0000-04",)), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        (ForgetRequest(contributor="alice"), 18),
        (ForgetRequest(contributor="bob's"), 18),
        (ForgetRequest(campaign="contract"), 0),
        (ForgetRequest(where="contributor = 'alice' AND proposal = 1"), 31),
    ],
    ids=lambda item: item.kind if isinstance(item, ForgetRequest) else str(item),
)
def test_in_the_archive_alone(project: Project, request_: ForgetRequest, left: int) -> None:
    selection = select_from_archive(project.archive, request_)
    receipt = remove_from_archive(project.archive, selection.ids, request_.kind)
    assert receipt["removed"] == len(selection.ids) == 37 - left
    assert receipt["reason"] == f"forget by {request_.kind}"
    assert len(project.held()) == left


def test_a_campaign_by_its_run_id_or_a_record_by_its_id(project: Project) -> None:
    own = project.run_id(project.first)
    selection = select_from_archive(project.archive, ForgetRequest(campaign=own))
    assert (selection.named, len(selection.ids)) == (18, 19)
    selection = select_from_archive(project.archive, ForgetRequest((f"{own}/{GONE[0]}",)))
    assert (selection.named, len(selection.ids)) == (1, 2)
    assert sorted(selection.runs.values()) == [1, 1]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ForgetRequest(contributor="carol"), "expected records of contributor 'carol', found none"),
        (ForgetRequest(campaign="other"), "expected records of campaign 'other', found none"),
        (ForgetRequest(where="value > 1e9"), "found none; nothing was forgotten"),
        (ForgetRequest(where="valu > 1"), "valu"),
        (ForgetRequest(("run/p0000-00",)), "expected known record ids, got run/p0000-00; ids look like contract-"),
    ],
)
def test_what_matches_nothing_is_one_clear_line(project: Project, request_: ForgetRequest, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_from_archive(project.archive, request_)
    with pytest.raises(InputError):
        select_from_archive(project.folder / "nowhere", request_)


def test_an_archive_that_is_gone_or_busy(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_records, "_OWNER_SECONDS", 0.2)
    with (
        ProjectArchive.open(project.archive),
        pytest.raises(
            InfrastructureError, match=r"in use by another pilotwave process.*pilotwave forget .* --finish"
        ),
    ):
        forget(project.first.path, ForgetRequest(GONE[1:]))
    assert GONE[1] not in state_of(project.first.path).settled
    assert finish_promised_forgetting(project.first.path) is not None
    assert len(project.held()) == 36
    shutil.rmtree(project.archive)
    assert forget(project.first.path, ForgetRequest(("p0000-00",))).receipt.archive is None


def test_the_answers_of_an_archive_by_what_was_asked(project: Project) -> None:
    groups = answers_of_archive(project.archive)
    assert [len(group) for group in groups.values()] == [36]
    (answers,) = groups.values()
    item = next(answer for answer in answers if answer.record_id.endswith("/p0001-03"))
    latents = [run.candidates(["p0001-03"])[0].latent.numpy() for run in (project.first, project.second)]
    assert any((item.latent == latent).all() for latent in latents)
    assert answers_of_archive(project.archive, "contributor = 'alice'").popitem()[1] != answers
    with pytest.raises(InputError, match="expected answers with a value, found none"):
        answers_of_archive(project.archive, "value > 1e9")
