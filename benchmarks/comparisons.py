"""The comparisons of algorithms that RESULTS.md states; each goes on where it stopped.

    python benchmarks/comparisons.py NAME [--record]

Every one is a `pilotwave bench` of some tasks, methods and seeds, with the settings that `pilotwave bench --tune`
chose on held-out tasks. ``--record`` writes the section of RESULTS.md, all tables in ``comparisons/NAME.md``
and the curves in ``docs/pictures``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from results import describe_machine, markdown_table, write_section

from pilotwave.bench.statistics import Curves, median_over, paper_ratio
from pilotwave.bench.suites import load_suite

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "pictures"
REFERENCE, OURS = "fast-direct", "trust-direct"
PLAIN = tuple(task.name for task in load_suite("analytic").tasks if not task.noise and not task.failures)
POLICIES = ("dno", "ddpo", "dpok", "d3po")
OF_FEWER = ("flow-direct", "cma-es")
ONE_PASS = ("flow-direct", "cma-es", "casbo", "tfg", "lidar", "noise-search", "random")
Figures = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One `pilotwave bench`.

    Attributes:
        title: Of its section.
        suite: Of the tasks.
        methods: The first is the reference.
        seeds: How many.
        queries: Of a run.
        tasks: All of the suite if empty.
        tuned_with: How the settings were chosen.
    """

    title: str
    suite: str
    methods: tuple[str, ...]
    seeds: int
    queries: int
    tasks: tuple[str, ...] = ()
    tuned_with: str = ""


ANALYTIC_TUNING = (
    "all but trust-direct and random with `--tune --seeds 2 --queries 192`, six settings each; the constants and "
    "defaults of trust-direct were chosen while looking at these very tasks, which favours it"
)
IMAGE_TUNING = "all but trust-direct with `--tune --seeds 1 --queries 192`, six settings each"
MOLECULE_TUNING = (
    "all but trust-direct with `--tune --task small-gap --seeds 1 --queries 96`, six settings each: one held-out "
    "task of three"
)
ALL_ANALYTIC = (REFERENCE, OURS, *OF_FEWER, "casbo", "dno", "tfg", "lidar", "noise-search", "random")


def harder(how: str, title: str) -> Comparison:
    """The comparison on the analytic tasks with noise or failures."""
    tasks, methods = tuple(f"{name}+{how}" for name in PLAIN), (REFERENCE, OURS, *OF_FEWER)
    tuned_with = f"{ANALYTIC_TUNING} (on tasks without {how})"
    return Comparison(f"Algorithms on the analytic suite, {title}", "analytic", methods, 5, 512, tasks, tuned_with)


COMPARISONS = {
    "analytic": Comparison(
        "Algorithms on the analytic suite", "analytic", ALL_ANALYTIC, 5, 512, PLAIN, ANALYTIC_TUNING
    ),
    "analytic-noise": harder("noise", "answers with noise of one standard deviation"),
    "analytic-failures": harder("failures", "one answer in five failing"),
    "images": Comparison(
        "Fast Direct and trust-direct on the image suite", "images", (REFERENCE, OURS), 5, 512, (), IMAGE_TUNING
    ),
    "images-policies": Comparison(
        "Algorithms on the image suite, with the baselines of the paper",
        "images",
        (REFERENCE, OURS, *POLICIES),
        2,
        512,
        (),
        IMAGE_TUNING,
    ),
    "molecules": Comparison(
        "Fast Direct and trust-direct on the molecule suite",
        "molecules",
        (REFERENCE, OURS),
        5,
        96,
        (),
        MOLECULE_TUNING,
    ),
    "molecules-policies": Comparison(
        "Algorithms on three molecule tasks, with the baselines of the paper",
        "molecules",
        (REFERENCE, OURS, *POLICIES),
        1,
        96,
        ("polarizability", "gap", "homo"),
        MOLECULE_TUNING,
    ),
    "images-others": Comparison(
        "The other algorithms on seven tasks of the image suite",
        "images",
        (OURS, *ONE_PASS),
        1,
        512,
        (
            "compressible",
            "incompressible",
            "natural",
            "shirt-as-t-shirt",
            "sneaker-as-ankle-boot",
            "t-shirt-as-dress",
            "pullover-as-coat",
        ),
        IMAGE_TUNING.replace("trust-direct", "trust-direct and random"),
    ),
    "molecules-others": Comparison(
        "The other algorithms on the molecule suite",
        "molecules",
        (OURS, *ONE_PASS),
        1,
        96,
        (),
        MOLECULE_TUNING.replace("trust-direct", "trust-direct and random"),
    ),
    "settings": Comparison(
        "What the settings of trust-direct buy",
        "analytic",
        (
            OURS,
            *(f"diversity-{value}=trust-direct:diversity={value}" for value in (0.0, 0.3, 0.5, 0.9)),
            *(f"drift-{value}=trust-direct:drift={value}" for value in (1.0, 4.0)),
            *(f"passes-{value}=trust-direct:passes={value}" for value in (2, 8)),
        ),
        5,
        192,
        PLAIN,
    ),
}


def command_of(name: str, comparison: Comparison) -> list[str]:
    """Returns the command, which writes into ``bench/NAME``."""
    command = ["pilotwave", "bench", "--suite", comparison.suite, "--output", f"bench/{name}"]
    command += ["--seeds", str(comparison.seeds), "--queries", str(comparison.queries)]
    command += [word for task in comparison.tasks for word in ("--task", task)]
    return command + [word for method in comparison.methods for word in ("--method", method)]


def aims(figures: Figures) -> list[str]:
    """Says which aims trust-direct meets against fast-direct."""
    tasks = [row for row in figures["tasks"].values() if REFERENCE in row and OURS in row]
    medians = figures["medians"].get(OURS, {})
    lines = []
    kind = "192" if "192" in medians else "paper"
    ratios = {name: row[OURS]["ratios"][kind] for name, row in figures["tasks"].items() if OURS in row}
    low, high = medians[kind]["interval"]
    counted = "at 192 queries" if kind == "192" else "as the paper counts"
    lines.append(
        f"at least 2 times fewer queries in the median task {counted}: {medians[kind]['value']:.2f} "
        f"({low:.2f}-{high:.2f}), {met(medians[kind]['value'] >= 2)}"
    )
    worst = min(ratios, key=lambda name: ratios[name]["value"])
    bound = "<" if ratios[worst]["censored"] else ""
    fine = ratios[worst]["value"] >= 0.9 and not ratios[worst]["censored"]
    lines.append(f"no task worse than 0.9: least {bound}{ratios[worst]['value']:.2f} ({worst}), {met(fine)}")
    passes = max(row[OURS]["passes_per_query"] for row in tasks)
    lines.append(f"at most 4 passes a query: {passes:.2f} at most, {met(passes <= 4)}")
    diversities = [pair(row, "diversity") for row in tasks]
    shares = [ours / theirs for ours, theirs in diversities if theirs > 0]
    half = statistics.median(shares)
    lines.append(
        f"at least half of its diversity, late in the runs: {half:.2f} of it in the median task (least "
        f"{min(shares):.2f}), {met(half >= 0.5)}"
    )
    names = list(tasks[0][OURS]["quality"])
    gains = {name: differences(tasks, name) for name in names}
    others = [f"; {name.replace('_', ' ')} by {statistics.median(gains[name]):+.2g}" for name in names[1:]]
    first = gains[names[0]]
    lines.append(
        f"quality no worse: {names[0].replace('_', ' ')} differs by {statistics.median(first):+.2g} in the median "
        f"task (least {min(first):+.2g}), {met(statistics.median(first) >= 0)}{''.join(others)}"
    )
    return lines


def differences(tasks: list[dict[str, Figures]], name: str) -> list[float]:
    """Ours minus the reference's, task by task."""
    pairs = [(row[OURS]["quality"], row[REFERENCE]["quality"]) for row in tasks]
    return [
        ours[name]["value"] - theirs[name]["value"] for ours, theirs in pairs if name in ours and name in theirs
    ]


def leads(figures: Figures, methods: list[str]) -> str:
    """Says how the reference and ours fare against the others as the paper counts, in the median task."""
    lines = []
    for leader in (REFERENCE, OURS):
        found = []
        for method in methods:
            tasks = [row for row in figures["tasks"].values() if leader in row and method in row]
            ratios = [paper_ratio(mean_curve(row[method]), mean_curve(row[leader])) for row in tasks]
            if method not in (REFERENCE, OURS) and ratios:
                middle = median_over(ratios)
                found.append(f"{'<' if middle.censored else ''}{middle.value:.1f} over `{method}`")
        lines.append(f"`{leader}`: {', '.join(found)}")
    return (
        "The other way round, with each of the others as the reference and mean curves (as the paper counts: all "
        "its queries over those until its best is passed; median task, < where it is not passed):\n\n- "
        + "\n- ".join(lines)
    )


def mean_curve(cell: Figures) -> Curves:
    """A method's mean curve on a task, as if it were of one seed."""
    return Curves((0,), np.array(cell["queries"]), np.array([cell["curve"]]))


def met(fine: bool) -> str:
    """Returns the verdict in words."""
    return "met" if fine else "**not met**"


def pair(row: dict[str, Figures], what: str) -> tuple[float, float]:
    """Ours and the reference's value of the first measure that both have."""
    ours, theirs = row[OURS][what], row[REFERENCE][what]
    name = next(name for name in max(ours, theirs, key=len) if name in ours and name in theirs)
    return ours[name]["value"], theirs[name]["value"]


def levels_by_task(figures: Figures, methods: list[str]) -> str:
    """Returns a table of levels at 192 queries, or at the end of shorter runs."""
    rows = []
    for task, row in figures["tasks"].items():
        cells = []
        for method in methods:
            levels = row[method]["levels"] if method in row else {}
            found = levels.get("192") or levels.get(max(levels, key=int, default=""))
            cells.append(
                "" if found is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(found["value"], *found["interval"])
            )
        rows.append([f"`{task}`", *cells])
    return markdown_table(["level at 192 or the end", *(f"`{method}`" for method in methods)], rows)


def section(name: str, comparison: Comparison, folder: Path) -> str:
    """Returns the body of the section of RESULTS.md."""
    figures = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    tables = (folder / "results.md").read_text(encoding="utf-8").split("\n### ")
    methods = list(dict.fromkeys(method for row in figures["tasks"].values() for method in row))
    parts = [
        f"`python benchmarks/comparisons.py {name} --record`, which runs "
        f"`{shlex.join(command_of(name, comparison))}`; {describe_machine(1)}."
    ]
    if comparison.tuned_with:
        parts.append(f"Tuned: {comparison.tuned_with}; chosen settings in `platform/pilotwave/bench/tuned`.")
    if REFERENCE in methods and OURS in methods:
        lines = "\n".join(f"- {line}" for line in aims(figures))
        parts.append(f"What was wanted of `{OURS}` against the tuned `{REFERENCE}`:\n\n{lines}")
    parts.append(tables[0].strip())
    parts.append(tables[1].partition("\n\n")[2].strip())
    parts.append(levels_by_task(figures, methods))
    if {REFERENCE, OURS} < set(methods):
        parts.append(leads(figures, methods))
    parts.append(
        f"All tasks: [comparisons/{name}.md](comparisons/{name}.md); curves: docs/pictures/bench_{name}.png."
    )
    return "\n\n".join(parts)


def record(name: str, comparison: Comparison, folder: Path) -> None:
    """Writes the section, the tables of all tasks, and the curves."""
    write_section(f"## {comparison.title}", section(name, comparison, folder))
    (HERE / "comparisons").mkdir(exist_ok=True)
    shutil.copyfile(folder / "results.md", HERE / "comparisons" / f"{name}.md")
    # A palette makes the picture a third as large, and a repository keeps every version of it.
    with Image.open(folder / "curves.png") as curves:
        curves.convert("RGB").quantize(96).save(PICTURES / f"bench_{name}.png", optimize=True)


def main() -> int:
    """Runs a comparison and records it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=COMPARISONS)
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    options = parser.parse_args()
    comparison = COMPARISONS[options.name]
    words = command_of(options.name, comparison)
    ended = subprocess.run([Path(sys.executable).with_name(words[0]), *words[1:]], check=False)
    if ended.returncode == 0 and options.record:
        record(options.name, comparison, Path("bench") / options.name)
    return int(ended.returncode)


if __name__ == "__main__":
    raise SystemExit(main())
