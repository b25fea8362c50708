"""Where a run really lives, if the folder at hand is only what was brought back of it.

A campaign that was started from outside its cluster lives on the cluster's storage; ``origin.json`` beside the copy
says where, so that nobody goes on from the copy by mistake and pays twice. May import :mod:`pilotwave.errors` and
:mod:`pilotwave.storage`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pilotwave.errors import RunDirectoryError
from pilotwave.storage import write_atomically

FILE = "origin.json"


@dataclass(frozen=True)
class Origin:
    """Where a run lives.

    Attributes:
        way: ``"client"``: a driver follows it through Ray Client. ``"job"``: a Ray job runs it.
        address: Of the cluster.
        run_dir: There.
        job: Its submission id, if it is one.
    """

    way: Literal["client", "job"]
    address: str
    run_dir: str
    job: str = ""

    def write(self, folder: Path) -> None:
        """Puts the note beside the copy."""
        write_atomically(folder / FILE, json.dumps(asdict(self), indent=2).encode())

    def how_to_go_on(self, folder: Path) -> str:
        """Returns the command that goes on with it."""
        if self.way == "job":
            return f"pilotwave submit {folder / 'campaign.yaml'} --address {self.address} --run-dir {self.run_dir}"
        return f"pilotwave resume {folder} --address {self.address}"


def read_origin(folder: Path) -> Origin | None:
    """Returns the note beside a copy, or None if the folder is the run itself.

    Raises:
        RunDirectoryError: There is a note that cannot be read.
    """
    try:
        return Origin(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RunDirectoryError(f"{folder / FILE} cannot be read: {error}") from error


def refuse_copy(folder: Path) -> None:
    """Refuses to run a campaign in a folder that is only a copy.

    Raises:
        RunDirectoryError: It is one.
    """
    origin = read_origin(folder)
    if origin is not None:
        raise RunDirectoryError(
            f"{folder} is a copy; the run itself is {origin.run_dir} at {origin.address}: go on there with: "
            f"{origin.how_to_go_on(folder)} (or remove {FILE} to go on from the copy on purpose)"
        )


__all__ = ["FILE", "Origin", "read_origin", "refuse_copy"]
