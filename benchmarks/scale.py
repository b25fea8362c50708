"""The loop at scale: what a decision costs, and how much memory the driver needs, up to a million queries.

    python benchmarks/scale.py [--record] [--only "2,000 evaluators"] [--data measured.json]

The scheduler is the one that every campaign runs through (`Coordinator`), with its ledger on a real disk, each
commit synchronised. What is not real is time: an oracle is a function that says how long an attempt takes
(lognormal, a log-standard deviation of 1), and to wait is to turn a clock (`pilotwave.testing.virtual_workers`).
One attempt in fifty breaks and is tried again, one in five hundred ends without an answer. Answers that come within
a lag of the first one are handled in one turn, as they are by a loop that was busy meanwhile. The model is a small
analytic one.

Each campaign runs in a process of its own. It is looked at four times a second: queries spent, wall time, processor
time, memory. Then the finished run is resumed with nothing left to do, in another process, and looked at with
`pilotwave status` and `pilotwave top`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from results import describe_machine, markdown_table, write_section

HEADING = "## The loop at scale: a million queries on a virtual clock"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "scale.png"
BEGIN = 1_000_000.0
WINDOWS = 10
MEBI = 2**20


@dataclass(frozen=True)
class Scenario:
    """One campaign.

    Attributes:
        name: Of it.
        algorithm: Kind.
        evaluators: In the pool.
        queries: The budget.
        batch_size: Of a proposal.
        median: Seconds of an attempt.
        lag: See :class:`pilotwave.testing.virtual_workers.VirtualWorkers`.
    """

    name: str
    algorithm: str
    evaluators: int
    queries: int
    batch_size: int
    median: float = 10.0
    lag: float = 1.0


SCENARIOS = (
    Scenario("64 evaluators", "random", 64, 20_000, 64),
    Scenario("2,000 evaluators", "random", 2_000, 1_000_000, 256),
    Scenario("64 evaluators, trust-direct", "trust-direct", 64, 2_000, 64),
)


def memory(name: str) -> float:
    """Returns a line of this process's memory in MiB, e.g. ``"VmRSS"``."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))


def drive(scenario: Scenario, run_dir: Path, *, resumes: bool) -> dict[str, Any]:
    """Runs a campaign to its end, or resumes one that has ended; returns the samples and what it took."""
    import torch

    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.execution.coordinator import Coordinator
    from pilotwave.execution.job import CampaignJob, Progress
    from pilotwave.execution.workers import EvaluationRequest
    from pilotwave.testing.small_campaign import campaign
    from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers
    from pilotwave.types import Failure

    torch.set_num_threads(1)
    chance = random.Random(0)
    broken, lost = Failure("network", "the line is broken", retryable=True), Failure("scf", "diverged")

    def oracle(request: EvaluationRequest) -> Attempt:
        fate = chance.random()
        failure = broken if fate < 0.02 else lost if fate < 0.022 else None
        return Attempt(seconds=scenario.median * math.exp(chance.gauss(0.0, 1.0)), failure=failure)

    function = run_dir.with_name("oracle.py")  # a name for `status`, which reads the campaign's file; never called
    function.write_text("def score(sample):\n    raise NotImplementedError\n")
    named: Any = {"kind": "python", "function": f"{function}:score", "version": "1", "time_limit": 1e6}
    named |= {"attempts": 5, "backoff_seconds": 5.0, "expected_cost": 1.0}
    config = campaign(
        named,
        {"kind": "inline", "evaluators": scenario.evaluators, "mode": "asynchronous", "log_level": "none"},
        queries=scenario.queries,
        batch_size=scenario.batch_size,
        algorithm={"kind": scenario.algorithm},
        backbone={"kind": "analytic", "dim": 4, "steps": 2},
    ).config
    budget = config.budget.model_copy(update={"cost": 2.0 * scenario.queries})
    config = config.model_copy(update={"budget": budget})
    run = RunDirectory(run_dir)
    if not resumes:
        run.create(config)
    workers = VirtualWorkers(config, oracle, now=BEGIN, lag=scenario.lag, keep_asked=False)
    samples: list[tuple[float, ...]] = []
    began = time.perf_counter()
    marks: dict[str, float] = {}

    def observe(progress: Progress) -> None:
        now = time.perf_counter() - began
        if progress.phase not in marks:
            marks[progress.phase], marks[f"{progress.phase}: processor"] = now, time.process_time()
            marks[f"{progress.phase}: peak"] = memory("VmHWM")
            if progress.phase == "saving" and resumes:
                print(json.dumps({"marks": marks}), flush=True)
                os._exit(0)  # the tables were written when it ended
        if progress.phase == "running":
            sample = (progress.spent, now, time.process_time(), memory("VmRSS"), progress.utilisation)
            samples.append(sample)
            if len(samples) % 120 == 0:
                print(*(f"{number:.6g}" for number in sample), file=sys.stderr, flush=True)

    job = CampaignJob(config, run.path, BEGIN)
    outcome = Coordinator(job, workers, observe, threading.Event(), workers.clock).run()
    marks["end: processor"], marks["end: peak"] = time.process_time(), memory("VmHWM")
    assert outcome.spent == scenario.queries, f"{outcome.spent} of {scenario.queries} queries"
    ledger = run.ledger_file.stat().st_size / MEBI
    return {"samples": samples, "marks": marks, "ledger": ledger, "virtual_hours": (workers.now - BEGIN) / 3600}


def in_a_process(command: list[str]) -> tuple[str, float, float]:
    """Runs a command; returns what it printed, its processor seconds and its peak memory in MiB."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(command)} failed")
        output.seek(0)
        return output.read(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Runs one scenario and looks at what it left."""
    run_dir = folder / "run"
    itself = [sys.executable, __file__, "--child", scenario.name, "--run-dir", str(run_dir)]
    text, _, _ = in_a_process(itself)
    found: dict[str, Any] = json.loads(text)
    found["machine"] = describe_machine(1)
    text, _, _ = in_a_process([*itself, "--resumes"])
    found["resumed"] = json.loads(text)["marks"]
    for verb in ("status", "top"):
        command = [sys.executable, "-c", "from pilotwave.cli import main; main()", verb, str(run_dir), "--json"]
        _, seconds, peak = in_a_process(command)
        found[verb] = [seconds, peak]
    return found


def curve(samples: list[list[float]], queries: int) -> list[list[str]]:
    """Returns the rows of the table: a tenth of the queries each."""
    spent, wall, processor, resident, utilisation = np.array(samples).T
    marks = np.linspace(0, queries, WINDOWS + 1)
    rows = []
    for low, high in itertools.pairwise(marks.tolist()):
        seconds = np.diff(np.interp([low, high], spent, wall))[0]
        busy = np.diff(np.interp([low, high], spent, processor))[0]
        each = 1000.0 / (high - low)
        at = int(np.searchsorted(spent, high).clip(0, len(spent) - 1))
        rows.append(
            [
                f"{high:,.0f}",
                f"{busy * each:.3f}",
                f"{seconds * each:.3f}",
                f"{resident[at]:.0f}",
                f"{utilisation[at]:.1%}",
            ]
        )
    return rows


def section(scenario: Scenario, found: dict[str, Any]) -> str:
    """Returns what is said of one scenario."""
    rows = curve(found["samples"], scenario.queries)
    resumed, marks = found["resumed"], found["marks"]
    processor = [float(row[1]) for row in rows]
    running, saving = marks["saving"] - marks["running"], marks["end: processor"] - marks["saving: processor"]
    (status, status_peak), (top, top_peak) = found["status"], found["top"]
    lines = [
        f"### {scenario.name}: {scenario.queries:,} queries, algorithm `{scenario.algorithm}`",
        f"Proposals of {scenario.batch_size}, attempts of {scenario.median:g} s in the median, a lag of "
        f"{scenario.lag:g} s; {found['virtual_hours']:.1f} virtual hours in {running:.0f} real seconds. Between "
        "the cheapest and the dearest tenth the processor time of a query differs by a factor of "
        f"{max(processor) / min(processor):.2f}. {found['machine']}.",
        markdown_table(
            ["queries", "processor ms a query", "wall ms a query", "resident MiB", "utilisation so far"], rows
        ),
        f"The ledger has {found['ledger']:,.0f} MiB. The driver's peak was {marks['saving: peak']:,.0f} MiB while "
        f"it ran; writing the tables and pictures at the end took {saving:.1f} s of processor time with a peak of "
        f"{marks['end: peak']:,.0f} MiB. A resumed driver is at work after {resumed['running: processor']:.1f} s "
        f"of it, imports included, with a peak of {resumed['running: peak']:,.0f} MiB; `pilotwave status` takes "
        f"{status:.1f} s and {status_peak:,.0f} MiB, `pilotwave top` {top:.1f} s and {top_peak:,.0f} MiB.",
    ]
    return "\n\n".join(lines)


def draw(kept: dict[str, Any], path: Path) -> None:
    """Draws what a query cost and what the driver's memory was, against the queries spent, as a PNG."""
    from pilotwave.report.figures import new_figure

    figure = new_figure(8, 6, dpi=150)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for scenario in SCENARIOS:
        if scenario.name not in kept:
            continue
        rows = curve(kept[scenario.name]["samples"], scenario.queries)
        spent = [float(row[0].replace(",", "")) for row in rows]
        upper.plot(spent, [float(row[1]) for row in rows], marker="o", label=scenario.name)
        lower.plot(spent, [float(row[3]) for row in rows], marker="o", label=scenario.name)
    upper.set(ylabel="processor time a query (ms)", yscale="log", title="The loop at scale")
    upper.set_ylim(0.05, max(10.0, upper.get_ylim()[1]))
    lower.set(ylabel="resident memory (MiB)", xlabel="queries spent", xscale="log")
    lower.set_ylim(0, 1.2 * lower.get_ylim()[1])
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    upper.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Measures, prints, and writes the section if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="the name of one scenario", choices=[item.name for item in SCENARIOS])
    parser.add_argument(
        "--data", type=Path, help="where measurements are kept, so that scenarios can run one by one"
    )
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--run-dir", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--resumes", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        scenario = next(item for item in SCENARIOS if item.name == options.child)
        print(json.dumps(drive(scenario, options.run_dir, resumes=options.resumes)))
        return
    kept: dict[str, Any] = {}
    if options.data is not None and options.data.exists():
        kept = json.loads(options.data.read_text())
    for scenario in SCENARIOS:
        if scenario.name in kept or options.only not in (None, scenario.name):
            continue
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            kept[scenario.name] = measure(scenario, Path(folder))
        if options.data is not None:
            options.data.write_text(json.dumps(kept))
    parts = [section(item, kept[item.name]) for item in SCENARIOS if item.name in kept]
    body = "\n\n".join(
        [
            "`python benchmarks/scale.py --record`: the scheduler of every campaign with its ledger on disk, each "
            "commit synchronised, on a virtual clock; lognormal attempts, 2% broken and tried again, 0.2% without "
            "an answer. One run each; processor time is the process's own, the virtual model and oracle included; "
            "wall time waits for the disk and for whatever else the machine does.",
            f"![Cost and memory against queries](../docs/pictures/{PICTURE.name})",
            *parts,
        ]
    )
    print(body)
    if options.record:
        draw(kept, PICTURE)
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
