"""Writes a run's samples and evaluations in a format that other programs open.

May import :mod:`pilotwave.report` and :mod:`pilotwave.archive.run_directory`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from pilotwave.errors import InputError, StorageError
from pilotwave.report.evaluations import evaluation_rows, evaluations_csv, evaluations_parquet
from pilotwave.report.export_format import ExportFormat
from pilotwave.report.image_grid import save_image_grid
from pilotwave.report.molecules import draw_molecules, molecules_sdf
from pilotwave.report.ranking import Ranked, best
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.report.tables import format_value, pretty_unit
from pilotwave.samples import ImageSample

PICTURE_COUNT = 20
"""How many of the best a picture shows unless told otherwise."""


def export_run(run: RecordedRun, format: ExportFormat, output: Path, count: int | None = None) -> int:
    """Writes one file, whole or not at all.

    Args:
        run: Where from.
        format: See :class:`ExportFormat`.
        output: The file; its folder is made if need be.
        count: Only so many of the best; by default everything (20 in a picture).

    Returns:
        How many samples or evaluations it holds.

    Raises:
        InputError: The format does not suit what the run made, or there is nothing to write yet.
        MissingDependencyError: A package that the format needs is not installed.
        StorageError: The file cannot be written.
    """
    if count is not None and count < 1:
        raise InputError(f"-n: expected 1 or more, got {count}")
    if format in (ExportFormat.PARQUET, ExportFormat.CSV):
        return _export_table(run, format, output, count)
    accepted = {"molecule"} if format is ExportFormat.SDF else {"molecule", "image"}
    if run.media is not None and run.media not in accepted:
        raise InputError(
            f"--format {format}: expected a run that makes samples of kind {' or '.join(sorted(accepted))}, "
            f"got {run.media!r}; use --format csv or parquet"
        )
    default = len(run.drawn) if format is ExportFormat.SDF else PICTURE_COUNT
    ranked = best(run, count or default)
    if not ranked:
        raise InputError(f"{run.directory.path}: no evaluation has a value yet, so there is nothing to export")
    if format is ExportFormat.SDF:
        write_file(output, molecules_sdf(ranked, oracle=run.oracle, unit=run.unit).encode())
    elif run.media == "molecule":
        write_file(output, draw_molecules(ranked, unit=run.unit))
    else:
        write_image_grid(ranked, output, run.unit)
    return len(ranked)


def write_image_grid(ranked: Sequence[Ranked], output: Path, unit: str) -> None:
    """Writes the images of the best, with their values, as one PNG, whole or not at all."""
    samples = [item.sample for item in ranked if isinstance(item.sample, ImageSample)]
    labels = [f"{format_value(item.value)} {pretty_unit(unit)}".strip() for item in ranked]
    temporary = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        save_image_grid(
            samples, temporary, columns=5, labels=labels, zoom=max(1, 140 // samples[0].pixels.shape[0])
        )
        temporary.replace(output)
    except OSError as error:
        raise _cannot_write(output, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_file(output: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    temporary = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(output)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _cannot_write(output, error) from error


def _export_table(run: RecordedRun, format: ExportFormat, output: Path, count: int | None) -> int:
    wanted = None if count is None else [item.query_id for item in best(run, count)]
    rows = evaluation_rows(run.judged(wanted))
    if format is ExportFormat.CSV:
        write_file(output, evaluations_csv(rows).encode())
    else:
        write_file(output, evaluations_parquet(rows))
    return len(rows)


def _cannot_write(output: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{output} cannot be written: {error.strerror or error}; choose another place or free space"
    )


__all__ = ["PICTURE_COUNT", "export_run", "write_file", "write_image_grid"]
