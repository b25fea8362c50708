"""Memory, cores, disk, clock, and where we may write.

May import the standard library and :mod:`pilotwave.doctor.check`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from pilotwave.doctor.check import Check

GIB = 2**30
_MEMORY_WANTED, _DISK_WANTED, _DISK_NEEDED, _SHARED_WANTED = 4 * GIB, 5 * GIB, GIB // 4, GIB // 4
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_and_cores() -> Check:
    """Says how many cores and how much memory this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    available, total = _memory()
    found = f"{cores} cores, {available / GIB:.1f} of {total / GIB:.1f} GiB of memory free"
    if available < _MEMORY_WANTED:
        return Check("memory and cores", "warning", found, "free some memory; a campaign under Ray wants 4 GiB")
    return Check("memory and cores", "ok", found)


def shared_memory(place: Path = Path("/dev/shm")) -> Check:
    """Says whether Ray's object store has room."""
    if not place.is_dir():
        return Check("shared memory", "ok", f"no {place} here; Ray uses files in the temporary folder")
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free in {place}"
    if free < _SHARED_WANTED:
        return Check("shared memory", "warning", found, "start the container with --shm-size=1g")
    return Check("shared memory", "ok", found)


def disk_space(place: Path | None = None) -> Check:
    """Says how much room there is where runs are written."""
    place = place or Path.cwd()
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free in {place}"
    if free < _DISK_NEEDED:
        return Check("disk space", "missing", found, "free some space, or work on another disk")
    if free < _DISK_WANTED:
        return Check("disk space", "warning", found, "free some space before a long campaign")
    return Check("disk space", "ok", found)


def writable_places() -> list[Check]:
    """Writes a file, durably, to the working directory and to the temporary folder."""
    return [
        write_access("working directory", Path.cwd(), "go to a folder that you may write to"),
        write_access(
            "temporary folder", Path(tempfile.gettempdir()), "set TMPDIR to a folder that you may write to"
        ),
    ]


def write_access(name: str, place: Path, remedy: str) -> Check:
    """Writes and removes a file."""
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".pilotwave-") as file:
            file.write(b"pilotwave")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check(name, "missing", f"{place} cannot be written: {error.strerror or error}", remedy)
    return Check(name, "ok", f"{place} is writable")


def clock(place: Path | None = None) -> Check:
    """Compares this machine's clock with that of the working directory's file system (a file server's, maybe)."""
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    try:
        with tempfile.NamedTemporaryFile(dir=place or Path.cwd(), prefix=".pilotwave-") as file:
            file.write(b"x")
            file.flush()
            ahead = os.stat(file.name).st_mtime - time.time()
    except OSError:
        ahead = 0.0  # said by write_access
    if time.gmtime().tm_year < 2025:
        return Check("clock", "warning", found, "set the clock: times in the ledger and the tracker would be wrong")
    if abs(ahead) > 5:
        found = f"{found}; the file system's clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
        return Check("clock", "warning", found, "synchronise this machine's clock with the file server's (NTP)")
    return Check("clock", "ok", found)


def _memory() -> tuple[int, int]:
    """Returns available and total bytes, as the container's limit allows."""
    facts = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, amount = line.partition(":")
            facts[name] = int(amount.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total, total
    total = facts["MemTotal"]
    for path in _CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(facts.get("MemAvailable", total), total), total


__all__ = ["GIB", "clock", "disk_space", "memory_and_cores", "shared_memory", "writable_places", "write_access"]
