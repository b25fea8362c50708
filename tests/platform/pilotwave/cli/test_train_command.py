"""``pilotwave train``: what it shows and writes, how it stops, and one line for each mistake."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pilotwave.cli import run as command_line
from pilotwave.cli.train import TRAINERS
from pilotwave.cli.training_screen import TrainingScreen
from pilotwave.cli.training_watchers import SampleFiles, Watchers
from pilotwave.errors import InputError
from pilotwave.samples import ImageSample, Invalid, MoleculeSample
from pilotwave.storage import held_folder
from pilotwave.training.progress import TrainingProgress, TrainingWatcher

pytest.importorskip("rdkit", reason="the molecule model needs rdkit")

from rdkit import Chem
from rdkit.Chem import rdDistGeom

SMILES = [
    "CO", "CC#N", "C=C=C", "CNC=O", "CC(C)(C)O", "c1ccccc1", "c1ccncc1O", "c1c[nH]cn1", "O=C1CCC(=O)N1", "CN=NC",
    "C1CC2CC1O2", "N#CC1CC1C=O", "NC(=O)c1ccco1", "CC1=CC(=O)NC1", "OCC(O)C(O)CO", "CC1(C)CCCC1=O", "C1CNC1",
    "c1ccoc1", "CCOCC", "CCCCO", "CC(=O)OC", "C1CCNCC1",
]  # fmt: skip
TINY = [
    "network.width=24", "network.layers=2", "network.heads=2", "network.pair_width=8", "network.pair_blocks=2",
    "batch_size=8", "processes=1", "samples=4", "sample_steps=2", "report_every=8", "device=cpu",
    "checkpoint_seconds=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "mine.sdf"
    with Chem.SDWriter(str(path)) as writer:
        for smiles in SMILES:
            molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
            assert rdDistGeom.EmbedMolecule(molecule, randomSeed=1) == 0
            writer.write(molecule)
    return path


def train(mine: Path, *settings: str, options: tuple[str, ...] = ()) -> int:
    given = [*TINY, f"data={mine}", f"cache={mine.parent}", *settings]
    sets = [part for setting in given for part in ("--set", setting)]
    return command_line(["train", "molecule", *options, *sets])


def test_it_trains_on_an_sdf_and_says_where_everything_is(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(mine, "molecules=16") == 0
    folder = Path("training/molecule")
    out = capsys.readouterr().out
    assert out.startswith("training molecule into training/molecule with cache=")
    assert "mine.sdf: 22 of 22 molecules fit" in out
    assert "8 of 16 seen (50%)  loss " in out
    assert "held-out " in out
    assert "decoded " in out
    assert out.rstrip().endswith("weights: training/molecule/molecule.safetensors")
    assert {path.name for path in folder.iterdir()} >= {"checkpoint.pt", "molecule.safetensors", "MODEL_CARD.md"}


def test_ctrl_c_saves_and_the_same_command_goes_on(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Path("training/molecule/checkpoint.pt").absolute()

    def interrupt() -> None:
        while not checkpoint.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    assert train(mine, "molecules=800000") == 130
    thread.join()
    out = capsys.readouterr().out
    assert "saving and stopping (Ctrl-C again quits now" in out
    assert "stopped after saving training/molecule/checkpoint.pt; the same command goes on" in out
    assert train(mine, "molecules=800000", "pause_after_minutes=0.000001") == 0
    assert "the same command goes on" in capsys.readouterr().out


def test_a_folder_that_another_training_writes_into_is_refused(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held_folder(Path("training/molecule"), InputError):
        assert train(mine, "molecules=16") == 2
    assert "training/molecule is in use by another pilotwave process; wait for it" in capsys.readouterr().err
    assert not Path("training").exists()
    assert train(mine, "molecules=16") == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["molecul"], "expected one of molecule, druglike, image, emoji, judge, got 'molecul'; did you mean"),
        (["molecule", "--set", "molecule=3"], "--set molecule: Extra inputs are not permitted; did you mean"),
        (["molecule", "--set", "real_share=2"], "--set real_share: Input should be less than 1"),
        (["molecule", "--set", "real_share=0.5"], "--set: real_share is for data of your own, but data is qm9"),
        (["druglike", "--set", "data=nowhere.sdf"], "nowhere.sdf: expected an SDF (.sdf or .sdf.gz), but: No such"),
        (["molecule", "--tracking", "mlflo"], "unknown kind 'mlflo'; did you mean 'mlflow'?"),
        (
            ["molecule", "--tracking", "mlflow", "--set", "tracking.patince=3"],
            "--set tracking.patince: Extra inputs",
        ),
        (["molecule", "--set", "tracking.experiment=x"], "--set tracking.experiment: Extra inputs"),
        (["molecule", "--set", "start=judge.safetensors"], "expected the weights of model 'molecule' at judge.saf"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {expected}")
    assert captured.err.count("\n") == 1
    assert not Path("training").exists()
    assert not list(Path().glob("*.db"))


@pytest.mark.parametrize("model", TRAINERS)
def test_the_settings_are_listed(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["train", model, "--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("output = (--output)    ")
    assert all(" = " in line and len(line.split("    ")[1]) > 10 for line in lines)


def report(**changes: object) -> TrainingProgress:
    quality = {"strict_validity": 0.5, "decoded_validity": 0.75, "tanimoto_distance": 0.9123}
    samples = (Invalid("no"), MoleculeSample("", "CCO"), MoleculeSample("", "CCO"), MoleculeSample("", "CO"))
    fields: dict[str, object] = {
        "seen": 32, "total": 64, "loss": 1.5, "held_out_loss": 1.25, "per_second": 10.0, "seconds_left": 3.2,
        "quality": quality, "samples": samples, "note": "low diversity",
    }  # fmt: skip
    return TrainingProgress(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_screen_shows_losses_validity_and_samples(terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=150, color_system=None, legacy_windows=False)
    with TrainingScreen(console, "training molecule into x") as screen:
        screen.announce("prepared 5 of 10", passing=True)
        screen.announce("22 of 22 molecules fit")
        screen.tick(8, 64, 2.0)
        screen(report(seen=16, quality={}, samples=(), note=""))
        screen(report())
        screen.tick(40, 64, 1.75)
    shown = text.getvalue()
    for part in (
        "training molecule into x",
        "22 of 22 molecules fit",
        "32 of 64 seen (50%)  loss 1.5000  held-out 1.2500  strict 50.0%  decoded 75.0%  Tanimoto distance 0.912",
        "10/s  0:03 left",
        "drew CCO  CO",
        "note: low diversity",
    ):
        assert part in shown, part
    if terminal:
        assert "━" in shown
        assert "loss 1.7500 now  loss 1.5000  held-out 1.2500" in shown
    else:
        assert "prepared 5 of 10" not in shown, "a passing line comes only now and then"
        assert "16 of 64 seen (25%)" in shown


def test_ctrl_c_ends_what_nobody_would_save() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), TrainingScreen(Console(file=io.StringIO()), "training") as screen:
        os.kill(os.getpid(), signal.SIGINT)
    assert not screen.interrupted
    with TrainingScreen(Console(file=io.StringIO()), "training") as screen:
        assert not screen.must_stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert screen.must_stop()
    assert signal.getsignal(signal.SIGINT) is before


def test_samples_are_written_down(tmp_path: Path, mine: Path) -> None:
    first = next(Chem.SDMolSupplier(str(mine), removeHs=False))
    molecule = MoleculeSample(Chem.MolToMolBlock(first), "CO", False, 2)
    files = SampleFiles(tmp_path, print)
    files(report(samples=()))
    assert not list(tmp_path.glob("samples.*"))
    files(report(samples=(molecule, Invalid("two fragments"))))
    (read,) = Chem.SDMolSupplier(str(tmp_path / "samples.sdf"), removeHs=False)
    assert (read.GetProp("smiles"), read.GetProp("molecules_seen")) == ("CO", "32")
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    pictures = tuple(ImageSample(torch.full((4, 4, 1), 9, dtype=torch.uint8).numpy()) for _ in range(3))
    (tmp_path / "samples.png").unlink()
    SampleFiles(tmp_path, print)(report(samples=pictures))
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_several_watchers_are_told_and_any_may_stop() -> None:
    class Keeping(TrainingWatcher):
        def __init__(self, stop: bool) -> None:
            self.stop, self.heard = stop, list[object]()

        def __call__(self, progress: TrainingProgress) -> None:
            self.heard.append(progress.seen)

        def announce(self, line: str, *, passing: bool = False) -> None:
            self.heard.append((line, passing))

        def tick(self, seen: int, total: int, loss: float) -> None:
            self.heard.append((seen, total, loss))

        def must_stop(self) -> bool:
            return self.stop

    one, other = Keeping(False), Keeping(True)
    both = Watchers(one, other)
    both(report())
    both.announce("line", passing=True)
    both.tick(1, 2, 3.0)
    assert one.heard == other.heard == [32, ("line", True), (1, 2, 3.0)]
    assert both.must_stop()
    assert not Watchers(one).must_stop()
