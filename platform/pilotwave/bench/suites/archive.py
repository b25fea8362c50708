"""The archive: recall, speed and costs of its index beside others, on the public protocol of ann-benchmarks.

There is no model here and no campaign, so this suite has no tasks of the common kind; its parts are measured one
after the other, in one thread, and a part that was measured is kept. May import pilotwave.bench.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave.bench.methods import digest
from pilotwave.bench.task import Suite
from pilotwave.bench.threads import one_thread
from pilotwave.config.registry import suggestion
from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.report.comparison_plots import Line
from pilotwave.report.index_plots import draw_indexes
from pilotwave.storage import write_atomically

SUITE = Suite("archive", (), ())
PARTS = ("sizes", "updates", "speed", "crossing", "encoding", "million", "ten-million")
"""What is measured; ``--task`` chooses among them."""
SEEDS = 3
REDUCED = 170
"""Dimensions at 512 bits where recall is not what is asked for; the default with a sample."""
Figures = dict[str, Any]
Tell = Callable[[str], None]


def measure_archive(
    names: Sequence[str], seeds: int, output: Path, tell: Tell, folder: Path | None = None, anew: bool = False
) -> dict[str, Path]:
    """Measures what is not measured yet, and writes the tables, the figures and the curves.

    Args:
        names: Of :data:`PARTS`; all if empty.
        seeds: Of the index, where recall is measured over seeds.
        output: Parts found here are kept.
        tell: Gets a line now and then.
        folder: Of Fashion-MNIST; Debian's if None.
        anew: Parts found are measured again.

    Returns:
        The files by what they are.

    Raises:
        InputError: There is no such part, or the data are not there.
        MissingDependencyError: faiss or numba is not installed.
        StorageError: A file could not be written.
    """
    for name in names:
        if name not in PARTS:
            known = dict.fromkeys(PARTS)
            raise InputError(f"--task: expected one of {', '.join(PARTS)}, got {name!r}{suggestion(name, known)}")

    @functools.cache
    def data() -> Any:
        from pilotwave.bench.archive_data import read_protocol

        tell("true neighbours")
        return read_protocol(folder)

    figures: Figures = {}
    with one_thread():
        for name in PARTS:
            if names and name not in names:
                continue
            path = output / "parts" / f"{name}-{digest([name, seeds])}.json"
            if anew or not path.exists():
                write_atomically(path, json.dumps(_measure(name, data, seeds, tell), indent=1).encode())
            figures[name] = json.loads(path.read_text(encoding="utf-8"))
    return _write(figures, seeds, output)


def _measure(name: str, data: Callable[[], Any], seeds: int, tell: Tell) -> Figures:
    from pilotwave.bench import archive_costs as costs
    from pilotwave.bench import archive_recall as recall
    from pilotwave.bench import archive_speed as speed

    public, everything = data()
    measures: dict[str, Callable[[], Figures]] = {
        "sizes": lambda: recall.measure_sizes(public, everything, seeds, tell),
        "updates": lambda: recall.measure_updates(public, REDUCED, seeds, tell),
        "speed": lambda: speed.measure_speed(public, REDUCED, tell),
        "crossing": lambda: speed.measure_crossing(public, REDUCED, tell),
        "encoding": lambda: costs.measure_encoding(public, everything, 5, tell),
        "million": lambda: costs.measure_million(public, tell),
        "ten-million": lambda: costs.measure_ten_million(public, tell),
    }
    return measures[name]()


def _write(figures: Figures, seeds: int, output: Path) -> dict[str, Path]:
    from pilotwave.bench.archive_tables import to_markdown

    files = {"table": output / "results.md", "figures": output / "results.json"}
    write_atomically(files["table"], to_markdown(figures).encode())
    write_atomically(files["figures"], json.dumps({"seeds": seeds, "parts": figures}, indent=1).encode())
    for name, draw in (("sizes", _draw_sizes), ("speed", _draw_speed)):
        if name not in figures:
            continue
        try:
            png = draw(figures[name])
        except MissingDependencyError:
            continue
        files[name] = output / f"{name}.png"
        write_atomically(files[name], png)
    return files


def _draw_sizes(figures: Figures) -> bytes:
    from pilotwave.bench.archive_tables import NAMES

    lines = []
    for name, title in NAMES.items():
        found = {int(bits): row[name] for bits, row in figures.items() if name in row}
        means = [np.mean(each["recall"] if isinstance(each, dict) else each) for each in found.values()]
        lines.append(Line(title, np.array(list(found), dtype=np.float64), np.array([means], dtype=np.float64)))
    places = [int(bits) for bits in figures]
    return draw_indexes("Short codes of Fashion-MNIST", lines, "bits of a code", "recall@10", places)


def _draw_speed(figures: Figures) -> bytes:
    lines = []
    for label, found in figures.items():
        rows = sorted(found["settings"].values(), key=lambda row: -row["seconds"])
        places = np.array([1.0 / row["seconds"] for row in rows])
        lines.append(Line(label, places, np.array([[row["recall"] for row in rows]])))
    return draw_indexes("Speed and recall, 55,000 vectors", lines, "queries a second, one thread", "recall@10")


__all__ = ["PARTS", "SEEDS", "SUITE", "measure_archive"]
