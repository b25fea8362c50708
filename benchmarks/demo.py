"""The demo's campaign, steered and unsteered, over several seeds: what it finds, and where its time goes.

``python benchmarks/demo.py --write`` writes its section of RESULTS.md. Each campaign is run as a user runs it,
through the command line, one after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results import describe_machine, markdown_table, write_section

ROOT = Path(__file__).resolve().parent.parent
CAMPAIGN = ROOT / "examples" / "polarizability.yaml"
HEADING = "## The demo"


def run_campaign(algorithm: str, seed: int, folder: Path) -> dict[str, Any]:
    """Runs the demo's campaign with an algorithm and a seed; returns its JSON with the batch means added."""
    run_dir = folder / f"{algorithm}-{seed}"
    settings = [f"algorithm.kind={algorithm}", f"seed={seed}", "tracking.kind=none"]
    options = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-c", "from pilotwave.cli import main; main()", "run", str(CAMPAIGN), *options]
    done = subprocess.run(
        [*command, "--run-dir", str(run_dir), "--json"], stdout=subprocess.PIPE, text=True, check=True, cwd=folder
    )
    result: dict[str, Any] = json.loads(done.stdout)
    result["batch_means"] = batch_means(run_dir)
    print(f"{algorithm} seed {seed}: {result['seconds']['wall']:.0f} s, best {result['best'][0]['value']:.2f}")
    return result


def batch_means(run_dir: Path) -> list[float]:
    from pilotwave.report.learning_curve import learning_curve
    from pilotwave.report.recorded_run import RecordedRun

    return [point.mean for point in learning_curve(RecordedRun.read(run_dir)) if point.mean is not None]


def spread(values: list[float], digits: int = 1) -> str:
    """Returns the mean with the lowest and highest."""
    return f"{statistics.fmean(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    header = ["", *results]
    rows = {
        "first batch, mean": lambda item: item["batch_means"][0],
        "last two batches, mean": lambda item: statistics.fmean(item["batch_means"][-2:]),
        "best": lambda item: item["best"][0]["value"],
        "mean of the ten best": lambda item: statistics.fmean(row["value"] for row in item["best"]),
        "seconds, wall": lambda item: item["seconds"]["wall"],
        "seconds generating": lambda item: item["seconds"]["generating"],
        "seconds evaluating": lambda item: item["seconds"]["evaluating"],
        "seconds until the first candidate is made": lambda item: item["seconds"]["starting"],
        "neither generating nor evaluating, %": lambda item: 100 * item["overhead"],
    }
    lines = [
        [name, *(spread([measure(item) for item in items]) for items in results.values())]
        for name, measure in rows.items()
    ]
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="campaigns per algorithm (default 3)")
    parser.add_argument("--write", action="store_true", help="write the section in benchmarks/RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            algorithm: [run_campaign(algorithm, seed, Path(folder)) for seed in range(options.seeds)]
            for algorithm in ("trust-direct", "fast-direct", "random")
        }
    body = (
        f"`python benchmarks/demo.py --seeds {options.seeds} --write`: examples/polarizability.yaml on Ray, "
        f"160 queries in batches of 16, seeds 0 to {options.seeds - 1}; mean (lowest-highest). Polarizabilities "
        "in bohr^3, GFN2-xTB at the relaxed geometry; no molecule is asked about twice, in any column.\n\n"
        f"{describe_machine(threads=2)}\n\n{table(results)}"
    )
    print(body)
    if options.write:
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
