"""What it costs to ask a judge that does nothing: the time that pilotwave adds to each question.

    python benchmarks/judges.py [--questions 200]

One thread, an array of two numbers, medians of the wall-clock time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import ArraySample
from pilotwave.testing.http_server import HttpTestServer, Reaction
from pilotwave_oracles.command import CommandOracleConfig
from pilotwave_oracles.http import HttpOracleConfig

STAYING = """#!/bin/sh
while read -r line; do
  id=${line#*query_id\\":\\"}
  echo "{\\"query_id\\": \\"${id%%\\"*}\\", \\"value\\": 1}"
done
"""


def milliseconds(oracle: Oracle, questions: int) -> float:
    sample = ArraySample(np.array([0.5, 1.0], dtype=np.float32))
    taken = []
    for number in range(questions):
        started = time.perf_counter()
        oracle.evaluate(sample, QueryContext(f"q{number}"))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def oracles(folder: Path, url: str) -> dict[str, Oracle]:
    script = folder / "stay"
    script.write_text(STAYING)
    script.chmod(0o755)
    printing = {"command": ["echo", "1"], "value": {"pattern": "1"}}
    replying = {"command": ["echo", '{"value": 1}']}
    return {
        "command, a number printed": CommandOracleConfig.model_validate(printing).build(),
        "command, a reply by the contract": CommandOracleConfig.model_validate(replying).build(),
        "command, persistent": CommandOracleConfig.model_validate(
            {"command": [str(script)], "persistent": True}
        ).build(),
        "http, a server on this machine": HttpOracleConfig(url=url).build(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=200)
    questions = parser.parse_args().questions
    with tempfile.TemporaryDirectory() as folder, HttpTestServer(lambda _: Reaction(body={"value": 1})) as server:
        for name, oracle in oracles(Path(folder), server.url).items():
            print(f"{name:36} {milliseconds(oracle, questions):7.2f} ms")


if __name__ == "__main__":
    main()
