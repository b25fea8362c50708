"""The archive's index beside faiss and hnswlib on the public protocol of ann-benchmarks, and its costs.

    python benchmarks/archive.py [--record]

It is `pilotwave bench --suite archive`, which goes on where it stopped; ``--record`` writes the section of
RESULTS.md and the curves in ``docs/pictures``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import sys
from pathlib import Path

from results import describe_machine, write_section

from pilotwave.bench.suites.archive import PARTS, SEEDS, measure_archive

HEADING = "## Memory: the index"
PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
LIBRARIES = ("numpy", "numba", "faiss-cpu", "hnswlib")


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def version_of(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"without {package}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; all by default")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"of the index (default {SEEDS})")
    parser.add_argument("--output", type=Path, default=Path("bench/archive"), help="default bench/archive")
    parser.add_argument("--anew", action="store_true", help="measure finished parts again")
    parser.add_argument("--record", action="store_true", help="write the section in benchmarks/RESULTS.md")
    options = parser.parse_args()
    if options.record and options.part:
        parser.error("--record is of all parts: leave out --part")
    files = measure_archive(options.part or [], options.seeds, options.output, tell, anew=options.anew)
    versions = ", ".join(version_of(name) for name in LIBRARIES)
    command = "`python benchmarks/archive.py --record` (or `pilotwave bench --suite archive`)"
    body = "\n\n".join(
        [
            f"{command}, index seeds 0 to {options.seeds - 1}.",
            f"{describe_machine(1)}; {versions}",
            files["table"].read_text(encoding="utf-8").strip(),
            "Curves: [recall by bits](../docs/pictures/archive_sizes.png), "
            "[speed against recall](../docs/pictures/archive_speed.png).",
        ]
    )
    print(f"{HEADING}\n\n{body}")
    if options.record:
        for name in ("sizes", "speed"):
            shutil.copyfile(files[name], PICTURES / f"archive_{name}.png")
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
