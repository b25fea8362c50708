"""The processes of Ray actors, for tests that kill them. May import the standard library."""

from __future__ import annotations

import os
from pathlib import Path


def pids_of_actor(actor: str) -> list[int]:
    """Finds the process of an actor of this process's own cluster by what Ray calls it, in /proc.

    Other clusters may be on this machine, and their actors are none of ours to kill.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if title.startswith(f"ray::{actor}") and is_descendant(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


def is_descendant(pid: int) -> bool:
    """Says whether this process, or one that it started, has started another."""
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            return False
        if pid == os.getpid():
            return True
    return False


__all__ = ["is_descendant", "pids_of_actor"]
