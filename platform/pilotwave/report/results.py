"""The files that a finished run leaves in its directory for people, whatever suits what it made.

May import :mod:`pilotwave.report`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotwave.errors import MissingDependencyError
from pilotwave.report.evaluations import evaluation_rows, evaluations_csv
from pilotwave.report.export import write_file, write_image_grid
from pilotwave.report.learning_curve import draw_learning_curve, learning_curve, learning_curve_csv
from pilotwave.report.molecules import draw_molecules, molecules_sdf
from pilotwave.report.ranking import Ranked, best
from pilotwave.report.recorded_run import RecordedRun


@dataclass(frozen=True)
class ResultFiles:
    """What was written.

    Attributes:
        best: The best, best first.
        files: From a file's name in the results directory to its path, in the order to show them.
        skipped: From a file's name to why it was not written (a package that is not installed).
    """

    best: tuple[Ranked, ...]
    files: dict[str, Path]
    skipped: dict[str, str]


def write_results(run_dir: Path, count: int = 10) -> ResultFiles:
    """Writes ``results/``: the best as SDF and picture, the learning curve, and a table of all evaluations.

    Writing twice replaces each file by a whole new one. A package that is not installed only costs its file.

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
    for name, write in _writers(run, ranked).items():
        path = run.directory.results / name
        try:
            write(path)
        except MissingDependencyError as error:
            skipped[name] = str(error)
        else:
            files[name] = path
    return ResultFiles(tuple(ranked), files, skipped)


def _writers(run: RecordedRun, ranked: list[Ranked]) -> dict[str, Callable[[Path], None]]:
    """Returns the files that suit this run, each with what writes it."""
    media = run.media if ranked else None
    writers: dict[str, Callable[[Path], None]] = {}
    if media == "molecule":
        sdf = molecules_sdf(ranked, oracle=run.oracle, unit=run.unit)
        writers["best.sdf"] = lambda path: write_file(path, sdf.encode())
        writers["best.png"] = lambda path: write_file(path, draw_molecules(ranked, unit=run.unit))
    elif media == "image":
        writers["best.png"] = lambda path: write_image_grid(ranked, path, run.unit)
    curve = learning_curve_csv(learning_curve(run))
    writers["learning_curve.png"] = lambda path: write_file(path, draw_learning_curve(run))
    writers["learning_curve.csv"] = lambda path: write_file(path, curve.encode())
    rows = evaluation_rows(run.judged())
    writers["evaluations.csv"] = lambda path: write_file(path, evaluations_csv(rows).encode())
    return writers


__all__ = ["ResultFiles", "write_results"]
