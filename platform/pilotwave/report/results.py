"""The files that a finished run leaves in its directory for people, whatever suits what it made.

May import :mod:`pilotwave.report`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import StorageError
from pilotwave.report.evaluations import evaluation_rows, evaluations_csv
from pilotwave.report.export import write_file, write_image_grid
from pilotwave.report.learning_curve import draw_learning_curve, learning_curve, learning_curve_csv
from pilotwave.report.molecules import draw_molecules, molecules_sdf
from pilotwave.report.ranking import Ranked, best
from pilotwave.report.recorded_run import RecordedRun

NAMES: dict[str, str] = {
    "structures": "best.sdf",
    "picture": "best.png",
    "learning_curve": "learning_curve.png",
    "learning_data": "learning_curve.csv",
    "evaluations": "evaluations.csv",
}
"""From what a file is to its name in the results directory, in the order to show them."""


@dataclass(frozen=True)
class ResultFiles:
    """What was written.

    Attributes:
        best: The best, best first.
        files: From what a file is (a key of :data:`NAMES`) to its path, in the order to show them.
        skipped: From what a file is to why it was not written (a package that is not installed).
    """

    best: tuple[Ranked, ...]
    files: dict[str, Path]
    skipped: dict[str, str]

    def paths(self) -> list[Path]:
        """Returns the files that were written."""
        return list(self.files.values())


def write_results(run_dir: Path, count: int = 10) -> ResultFiles:
    """Writes ``results/``: the best as SDF and picture, the learning curve, and a table of all evaluations.

    Writing twice replaces each file by a whole new one. A package that is not installed, or a sample that cannot
    be drawn, only costs its file.

    Args:
        run_dir: Of a run; a campaign may still be writing to it.
        count: How many of the best.

    Raises:
        RunDirectoryError: There is no run here.
        StorageError: The ledger cannot be read, or a file cannot be written.
    """
    run = RecordedRun.read(run_dir)
    ranked = best(run, count)
    files: dict[str, Path] = {}
    skipped: dict[str, str] = {}
    for what, write in _writers(run, ranked).items():
        path = run.directory.results / NAMES[what]
        try:
            write(path)
        except StorageError:
            raise
        except Exception as error:  # a file that one sample spoils must not cost the other files
            skipped[what] = f"{NAMES[what]} was not written: {error}"
        else:
            files[what] = path
    return ResultFiles(tuple(ranked), files, skipped)


def existing_results(run_dir: Path) -> dict[str, Path]:
    """Returns the result files that a run directory holds, by what they are."""
    results = RunDirectory(run_dir).results
    return {what: results / name for what, name in NAMES.items() if (results / name).exists()}


def _writers(run: RecordedRun, ranked: list[Ranked]) -> dict[str, Callable[[Path], None]]:
    """Returns the files that suit this run, by what they are, each with what writes it."""
    media = run.media if ranked else None
    writers: dict[str, Callable[[Path], None]] = {}
    if media == "molecule":
        sdf = molecules_sdf(ranked, oracle=run.oracle, unit=run.unit)
        writers["structures"] = lambda path: write_file(path, sdf.encode())
        writers["picture"] = lambda path: write_file(path, draw_molecules(ranked, unit=run.unit))
    elif media == "image":
        writers["picture"] = lambda path: write_image_grid(ranked, path, run.unit)
    curve = learning_curve_csv(learning_curve(run))
    writers["learning_curve"] = lambda path: write_file(path, draw_learning_curve(run))
    writers["learning_data"] = lambda path: write_file(path, curve.encode())
    rows = evaluation_rows(run.judged())
    writers["evaluations"] = lambda path: write_file(path, evaluations_csv(rows).encode())
    return writers


__all__ = ["ResultFiles", "write_results"]
