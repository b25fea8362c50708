"""Our Gaussian process against gpytorch: speed and memory of gradients, and of adding answers.

    python benchmarks/surrogate.py [--write]

1. Posterior mean and gradient for a batch, both processes conditioned already (which favours gpytorch: the
   reference program refits before every gradient), gpytorch by autograd looped over the batch.
2. The same from nothing: condition on N answers, then one batch (gpytorch conditions at its first query, so it
   answers one query more).
3. Adding a batch of answers against factorising anew: with the kernel, and its linear algebra alone.

Every measurement runs in a process of its own, ours and theirs in turns, and a run does all of them. Peak
memory is the process's high-water mark beyond what it held when data and libraries were loaded. Beside wall-clock
seconds stand the process's own CPU seconds, which other programs on the machine disturb far less: the verdict
goes by them.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from results import describe_machine, markdown_table, write_section
from torch import Tensor

from pilotwave.surrogates.gaussian_process import SOFTPLUS_OF_ZERO, GaussianProcess

HEADING = "## Surrogate"
NOISE = 1e-4
SMALL_DIM = 64
FIELDS = (("cpu", "CPU seconds", 1.0, 3), ("seconds", "seconds", 1.0, 3), ("bytes", "peak MiB", 2**-20, 0))

Reading = dict[str, float]


def make_data(known: int, batch: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points, scores and queries such as latents near the Gaussian shell, float32."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(known, dim, generator=generator)
    queries = torch.randn(batch, dim, generator=generator)
    return points, points[:, :8].sum(dim=1), queries


def resident_bytes(field: str) -> int:
    """Reads VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"expected {field} in /proc/self/status; memory is measured on Linux only")


class Meter:
    """Measures seconds, CPU seconds and the high-water mark of memory, from its making to each reading."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
        self.resident = resident_bytes("VmRSS")
        self.started, self.started_cpu = time.perf_counter(), time.process_time()

    def read(self) -> Reading:
        """Returns what was used since."""
        return {
            "seconds": time.perf_counter() - self.started,
            "cpu": time.process_time() - self.started_cpu,
            "bytes": max(0, resident_bytes("VmHWM") - self.resident),
        }


def measure_ours(known: int, batch: int, dim: int) -> dict[str, Any]:
    """Conditions our process and evaluates one batch."""
    points, scores, queries = make_data(known, batch, dim)
    GaussianProcess(8, noise=NOISE).mean_gradient(torch.zeros(1, 8))  # threads and libraries are up
    fitting = Meter()
    process = GaussianProcess(dim, noise=NOISE)
    process.append(points, scores)
    process.snapshot()
    fitted, predicting = fitting.read(), Meter()
    results = process.snapshot().mean_and_gradient(queries)
    return report(fitting, predicting, fitted, results)


def measure_gpytorch(known: int, batch: int, dim: int) -> dict[str, Any]:
    """Conditions gpytorch's process and evaluates one batch, a query at a time."""
    import gpytorch

    points, scores, queries = make_data(known, batch, dim)

    class Model(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            likelihood = gpytorch.likelihoods.GaussianLikelihood(
                noise_constraint=gpytorch.constraints.GreaterThan(NOISE / 10)
            )
            super().__init__(points, scores, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
            likelihood.noise = NOISE
            self.covar_module.outputscale = SOFTPLUS_OF_ZERO
            self.covar_module.base_kernel.lengthscale = dim**0.5

        def forward(self, x: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    def evaluate(model: Model, query: Tensor) -> tuple[Tensor, Tensor]:
        query = query[None].clone().requires_grad_()
        mean = model(query).mean
        (gradient,) = torch.autograd.grad(mean.sum(), query)
        mean = mean.detach()
        gc.collect()  # frees what cycles hold; memory grows with the queries all the same
        return mean, gradient

    model = Model().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    exact, mean_only = gpytorch.settings.fast_computations, gpytorch.settings.skip_posterior_variances
    with exact(False, False, False), mean_only():
        fitting = Meter()
        evaluate(model, queries[0])  # fills the prediction caches
        fitted, predicting = fitting.read(), Meter()
        means, gradients = zip(*(evaluate(model, query) for query in queries), strict=True)
        return report(fitting, predicting, fitted, (torch.cat(means), torch.cat(gradients)))


def report(
    fitting: Meter, predicting: Meter, fitted: Reading, results: tuple[Tensor, Tensor]
) -> dict[str, Reading]:
    """The readings of predicting alone and of both phases; the numbers themselves are saved to be compared."""
    predicted = predicting.read()
    torch.save(results, Path(sys.argv[-1]))
    held = predicting.resident - fitting.resident
    whole = {key: fitted[key] + predicted[key] for key in ("seconds", "cpu")}
    whole["bytes"] = max(fitted["bytes"], predicted["bytes"] + held)
    return {"predict": predicted, "whole": whole}


def measure_append(known: int, batch: int, dim: int) -> dict[str, Any]:
    """CPU seconds to add a batch of answers to a process that knows N, and to fit all of them anew."""
    figures = {}
    for name, width in (("with the kernel", dim), ("linear algebra", SMALL_DIM)):
        points, scores, _ = make_data(known + batch, 1, width)
        process = GaussianProcess(width, noise=NOISE)
        process.append(points[:known], scores[:known])
        grown = copy.deepcopy(process)
        started = time.process_time()
        grown.append(points[known:], scores[known:])
        appended = time.process_time()
        anew = GaussianProcess(width, noise=NOISE)
        anew.append(points, scores)
        figures[name] = {"append": appended - started, "anew": time.process_time() - appended}
    return figures


MEASUREMENTS = {"ours": measure_ours, "gpytorch": measure_gpytorch, "append": measure_append}


def run_child(name: str, options: argparse.Namespace, output: Path) -> dict[str, Any]:
    """Runs one measurement in a process of its own."""
    sizes = [str(options.known), str(options.batch), str(options.dim), str(options.threads)]
    command = [sys.executable, __file__, "--child", name, *sizes, str(output)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def child(arguments: list[str]) -> None:
    """The other side of :func:`run_child`."""
    name, known, batch, dim, threads = arguments[:5]
    torch.set_num_threads(int(threads))
    print(json.dumps(MEASUREMENTS[name](int(known), int(batch), int(dim))))


def spread(values: list[float], scale: float = 1.0, digits: int = 3) -> str:
    """Minimum, median and maximum."""
    ordered = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{scale * value:.{digits}f}" for value in ordered)


def ratio(theirs: list[float], ours: list[float]) -> float:
    """The ratio of medians."""
    return statistics.median(theirs) / statistics.median(ours)


def comparison_rows(runs: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Rows of the table: ours and gpytorch's seconds and memory, and their ratios."""
    rows = []
    for part, label in (("predict", "conditioned already"), ("whole", "from nothing")):
        for field, unit, scale, digits in FIELDS:
            ours, theirs = ([run[part][field] for run in runs[name]] for name in ("ours", "gpytorch"))
            what = f"{label}, {unit}"
            measurable = field != "bytes" or statistics.median(ours) > 2**20
            factor = f"{ratio(theirs, ours):.1f}x" if measurable else "ours is under 1 MiB"
            rows.append([what, spread(ours, scale, digits), spread(theirs, scale, digits), factor])
    return rows


def append_rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of the table: appending and factorising anew."""
    rows = []
    for name in runs[0]:
        append, anew = ([run[name][key] for run in runs] for key in ("append", "anew"))
        rows.append([name, spread(append, digits=4), spread(anew, digits=4), f"{ratio(anew, append):.1f}x"])
    return rows


def verdict(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Says which of the stated targets were met in this run."""

    def medians(part: str, field: str) -> tuple[float, float]:
        ours, theirs = (statistics.median(run[part][field] for run in runs[n]) for n in ("ours", "gpytorch"))
        return ours, theirs

    (our_seconds, their_seconds), (our_bytes, their_bytes) = (
        medians("predict", "seconds"),
        medians("whole", "bytes"),
    )
    anew = ratio(*([run["with the kernel"][key] for run in runs["append"]] for key in ("anew", "append")))
    claims = [
        ("gradients at least 20x faster, conditioned already", their_seconds >= 20 * our_seconds),
        ("at most half the peak memory, conditioning included", 2 * our_bytes <= their_bytes),
        ("adding a batch at least 10x faster than fitting anew", anew >= 10),
    ]
    return "\n".join(f"- {claim}: {'met' if held else 'NOT met'}" for claim, held in claims)


def agreement(directory: Path) -> str:
    """How far the gradients of the two lie apart."""
    (_, ours), (_, theirs) = (torch.load(directory / f"{name}.pt") for name in ("ours", "gpytorch"))
    return f"{float((ours - theirs).norm() / theirs.norm()):.1e}"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--known", type=int, default=1600, help="answers known, N (default 1600)")
    parser.add_argument("--batch", type=int, default=32, help="queries, and answers added (default 32)")
    parser.add_argument("--dim", type=int, default=65_536, help="numbers per latent (default 65536)")
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--write", action="store_true", help="write the section in benchmarks/RESULTS.md")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in MEASUREMENTS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for name in MEASUREMENTS:
                runs[name].append(run_child(name, options, Path(folder) / f"{name}.pt"))
                print(f"{name}: {runs[name][-1]}", file=sys.stderr, flush=True)
        difference = agreement(Path(folder))
    body = "\n\n".join(
        [
            f"`python benchmarks/surrogate.py --write`: N = {options.known:,}, d = {options.dim:,}, batch "
            f"{options.batch}; {options.repeats} processes each, seed 0, min / median / max; ratios of medians.",
            describe_machine(options.threads),
            "Posterior mean and gradient of a batch:",
            markdown_table(["", "pilotwave", "gpytorch, looped autograd", "ratio"], comparison_rows(runs)),
            "gpytorch's peak grows with each query of its loop (why was not looked into): it depends on the batch.",
            f"The gradients differ by {difference} of their norm (both float32 latents).",
            f"Adding {options.batch} answers at N = {options.known:,} (linear algebra: kernel at d = {SMALL_DIM}):",
            markdown_table(["CPU seconds", "append", "fit anew", "ratio"], append_rows(runs["append"])),
            verdict(runs),
        ]
    )
    print(f"{HEADING}\n\n{body}")
    if options.write:
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
