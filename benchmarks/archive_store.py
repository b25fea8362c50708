"""How fast a project archive takes answers in, and what opening one of a million costs.

Run::

    python benchmarks/archive_store.py [--records 1000000] [--record]

Appends run in batches that are each on the disk before the next begins; the archive is then compacted, and opened
in a fresh process that reports its own time and memory. May import the core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from results import describe_machine, markdown_table, write_section

from pilotwave.archive.project import AnswerRecord, ProjectArchive
from pilotwave.samples import ArraySample
from pilotwave.testing.answer_records import answer_record

HEADING = "## The project archive: appending, opening, finding"
LATENT = (8, 16)
"""128 numbers, as a small molecule's; the noise sequence has as many again a step."""
STEPS = 3
BATCHES = (1, 16, 256, 1024)
TOGETHER = 1024

_OPENING = """
import json, sys, time

def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

from pathlib import Path
began = time.perf_counter()
from pilotwave.archive.project import EvaluationKey, ProjectArchive
imported, before = time.perf_counter(), memory("VmRSS")
archive = ProjectArchive.open(Path(sys.argv[1]), read_only=sys.argv[2] == "reader")
rows = len(archive)
opened, after = time.perf_counter(), memory("VmRSS")
record = archive.get(sys.argv[3])
got = time.perf_counter()
missing = sys.argv[3] + "-not" in archive
absent = time.perf_counter()
found = len(archive.lookup(record.key()))
looked = time.perf_counter()
print(json.dumps({
    "rows": rows, "import": imported - began, "open": opened - imported,
    "resident": after, "gained": after - before, "peak": memory("VmHWM"),
    "get": got - opened, "absent": absent - got, "lookup": looked - absent, "found": found,
}))
"""


def records(start: int, count: int) -> list[AnswerRecord]:
    """Records that differ in all that matters to an archive; made before the clock starts."""
    random = np.random.default_rng(start)
    base = answer_record(0, latent_shape=LATENT, steps=STEPS)
    latents = random.standard_normal((count, *LATENT)).astype(np.float32)
    noise = random.standard_normal((count, STEPS + 1, *LATENT)).astype(np.float32)
    made = []
    for place in range(count):
        number = start + place
        sample = ArraySample(latents[place].reshape(-1)[:16])
        identity = sample.identity()
        made.append(
            replace(
                base,
                record_id=f"bench-run/p{number // 16:07d}-{number % 16:02d}",
                query_id=f"p{number // 16:07d}-{number % 16:02d}",
                proposal=number // 16,
                identity=identity,
                canonical=identity,
                content=identity,
                sample_blob=sample.payload()[1],
                value=float(latents[place].sum()),
                latent=latents[place],
                noise=noise[place],
            )
        )
    return made


class Clock:
    """Adds up wall and processor seconds of what is timed."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor = 0.0

    def time(self, work: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.processor += time.process_time() - processor


def append_rates(folder: Path, batches: tuple[int, ...], seconds: float) -> dict[int, tuple[int, Clock]]:
    """Appends for some seconds at each batch size; a batch counts when it is on the disk."""
    rates = {}
    for size in batches:
        path = folder / f"batch{size}"
        with ProjectArchive.create(path, latents="float16") as archive:
            archive.append(records(10**9, size))
            done, clock = 0, Clock()
            while sum(clock.wall) < seconds:
                fresh = records(done, size)
                clock.time(lambda archive=archive, fresh=fresh: archive.append(fresh))
                done += size
        rates[size] = (done, clock)
        shutil.rmtree(path)
    return rates


def fill(path: Path, count: int) -> tuple[Clock, Clock]:
    """Appends so many records and compacts."""
    appending, compacting = Clock(), Clock()
    with ProjectArchive.create(path, latents="float16") as archive:
        for start in range(0, count, TOGETHER):
            fresh = records(start, min(TOGETHER, count - start))
            appending.time(lambda fresh=fresh: archive.append(fresh))
        compacting.time(archive.compact)
    return appending, compacting


def opened(path: Path, who: str, record_id: str) -> dict[str, Any]:
    """Opens an archive in a fresh process."""
    command = [sys.executable, "-c", _OPENING, str(path), who, record_id]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    facts: dict[str, Any] = json.loads(said.stdout)
    return facts


def removal(path: Path, count: int) -> dict[str, float]:
    """Times a condition, a check of everything and a removal on the large archive."""
    found = {}
    with ProjectArchive.open(path) as archive:
        began = time.perf_counter()
        found["matches"] = archive.table("value > 30", ["record_id", "value"]).num_rows
        found["query"] = time.perf_counter() - began
        began = time.perf_counter()
        archive.stats()
        found["stats"] = time.perf_counter() - began
        gone = [record.record_id for record in records(count // 2, 100)]
        began = time.perf_counter()
        archive.remove(gone, reason="benchmark")
        found["remove"] = time.perf_counter() - began
    return found


def report(count: int, seconds: float, folder: Path) -> str:
    """Measures everything; returns the section's text."""
    rates = append_rates(folder, BATCHES, seconds)
    path = folder / "large"
    appending, compacting = fill(path, count)
    kinds = ("parquet", "latents", "noise", "keys", "sums")
    size = {kind: sum(item.stat().st_size for item in path.rglob(f"*.{kind}")) / 2**20 for kind in kinds}
    name = records(count // 3, 1)[0].record_id
    opening = [(who, opened(path, who, name)) for who in ("reader", "owner")]
    work = removal(path, count)
    rows = [
        [
            str(batch),
            f"{done / sum(clock.wall):,.0f}",
            f"{statistics.median(clock.wall) * 1e3:.2f} ms",
            f"{clock.processor / done * 1e6:.0f} µs",
            f"{done:,}",
        ]
        for batch, (done, clock) in rates.items()
    ]
    header = ["records a batch", "records a second", "median a batch", "processor a record", "appended"]
    return "\n\n".join(
        [
            "`python benchmarks/archive_store.py --record`",
            describe_machine(1),
            f"Records with a latent of {LATENT[0] * LATENT[1]} numbers and a noise sequence of {STEPS + 1} times "
            "as many, in float16, with an array of 16 numbers as the sample; every batch is one frame and on the "
            "disk (`fsync`) before the next begins. Making the records is not counted; checksums, digests and the "
            "check for known ids are.",
            markdown_table(header, rows),
            f"Sustained over {count:,} records in batches of {TOGETHER:,}: {count / sum(appending.wall):,.0f} a "
            f"second (target: 10,000), {appending.processor / count * 1e6:.0f} µs of processor each. Compaction of "
            f"them all: {compacting.wall[0]:.0f} s. On disk afterwards: "
            + ", ".join(f"{kind} {amount:.0f} MiB" for kind, amount in size.items())
            + ".",
            f"Opening the compacted archive of {opening[0][1]['rows']:,} records in a fresh process (targets: 2 s, "
            "500 MB). Resident is the whole process after opening, peak after the look-ups as well.",
            _opening_table(opening),
            f"On the same archive: a condition over one column ({work['matches']:,} matches) {work['query']:.2f} "
            f"s, all statistics {work['stats']:.2f} s, removing 100 neighbouring records for good "
            f"{work['remove']:.1f} s (one part is written anew).",
        ]
    )


def _opening_table(opening: list[tuple[str, dict[str, Any]]]) -> str:
    rows = [
        [
            who,
            f"{said['import']:.2f} s",
            f"{said['open']:.3f} s",
            *(f"{said[name] / 2**20:.0f} MiB" for name in ("gained", "resident", "peak")),
            *(f"{said[name] * 1e3:.1f} ms" for name in ("get", "absent", "lookup")),
        ]
        for who, said in opening
    ]
    header = ["who", "import", "open", "gained", "resident", "peak", "first record", "absent id", "look-up"]
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="at each batch size")
    parser.add_argument("--folder", type=Path, help="where to write; a disk, not a memory file system")
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        text = report(given.records, given.seconds, Path(folder))
    print(text)
    if given.record:
        write_section(HEADING, text)


if __name__ == "__main__":
    main()
