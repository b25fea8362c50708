"""What the benchmarks share: describing the machine, and keeping one section each in RESULTS.md.

May import: the standard library and torch.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# What was measured\n\nEvery section is written by the command it names.\n"


def describe_machine(threads: int) -> str:
    """Returns one line: processor, cores, load, versions; a load above zero contends with the measurement."""
    import torch

    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{processor_name()}, {os.cpu_count()} cores, {threads} thread(s) used, load average {load} when done; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def processor_name() -> str:
    """Returns the processor's model, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def with_section(document: str, heading: str, body: str) -> str:
    """Returns the document with the section of this heading (``## ...``) replaced, or added at the end.

    A section reaches to the next heading of its own or a higher level; fenced code is not looked into.
    """
    lines, kept, inside, fenced, placed = document.splitlines(), [], False, False, False
    for line in lines:
        fenced ^= line.startswith("```")
        starts = not fenced and line.startswith(("# ", "## "))
        if starts:
            inside = line.strip() == heading
            if inside and not placed:
                kept += [heading, "", *body.strip().splitlines(), ""]
                placed = True
        if not inside:
            kept.append(line)
    if not placed:
        kept += ["", heading, "", *body.strip().splitlines()]
    return "\n".join(kept).rstrip() + "\n"


def write_section(heading: str, body: str, path: Path = RESULTS) -> None:
    """Replaces one section of the results file, whole or not at all; other sections stay as they are."""
    document = path.read_text(encoding="utf-8") if path.exists() else TITLE
    fresh = path.with_suffix(".md.new")
    fresh.write_text(with_section(document, heading, body), encoding="utf-8")
    fresh.replace(path)
