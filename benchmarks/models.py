"""Measures the shipped models, and keeps what it measured as a section of RESULTS.md.

    python benchmarks/models.py molecule --samples 10000 --record
    python benchmarks/models.py druglike --samples 10000 --record
    python benchmarks/models.py image --samples 10000 --record

Molecules: strict and decoded validity with 95% intervals by steps, sampler and precision; speed; uniqueness and
novelty; what a relaxation does to them and to the data; how far their distributions are from the data's, beside the
distance between two samples of the data; how near molecules stay when part of their noise is replaced. Images:
what the judge says of them, see `image_models.py`. Whatever was drawn or relaxed is kept under --work and not done
again, so a benchmark that was stopped goes on. Needs the extras `molecules`, `images`, `report` and `train`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import image_models
import molecule_models
import torch
from results import write_section

from pilotwave.storage import write_atomically

RECORDED = Path(__file__).with_name("models.json")
"""The quality of the shipped weights at one setting each: tests/benchmarks/test_models.py draws again."""


def main() -> None:
    """Measures, prints, draws and records."""
    arguments = parse()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    measure = image_models.measure if arguments.model == "image" else molecule_models.measure
    heading, body, recorded = measure(arguments)
    print(body)
    if arguments.record:
        write_section(heading, body)
        record(arguments.model, recorded)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[*molecule_models.SUBJECTS, "image"])
    parser.add_argument("--checkpoint", default="builtin")
    parser.add_argument("--samples", type=int, default=10_000, help="at the main settings: 20 and 50 steps")
    parser.add_argument("--samples-other", type=int, default=1000, help="at every other setting; 0 leaves them out")
    parser.add_argument("--steps", type=int, nargs="*", default=[10, 20, 50, 100])
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--compared", type=int, default=5000, help="samples whose distributions are compared")
    parser.add_argument("--relax", type=int, help="samples relaxed with GFN2-xTB; 300, or 30 drug-like ones")
    parser.add_argument("--children", type=int, help="parents of the steering measurement; 128, or 32 drug-like")
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "pilotwave-models",
        help="where finished parts are kept, to go on from",
    )
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md and the pictures")
    arguments = parser.parse_args()
    if arguments.record and arguments.checkpoint != "builtin":
        parser.error("--record keeps the quality of the built-in weights; leave --checkpoint out")
    return arguments


def record(model: str, recorded: dict[str, object]) -> None:
    """Keeps what the test repeats."""
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    known[model] = recorded
    write_atomically(RECORDED, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
