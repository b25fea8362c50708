"""A campaign handed to a cluster as a job: it runs there by itself, and its results are brought back.

What hands it over comes through the entry point group ``pilotwave.jobs``, so the core knows no cluster. May import
:mod:`pilotwave.config`, :mod:`pilotwave.errors` and the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol

from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import MissingDependencyError

GROUP = "pilotwave.jobs"
KIND = "ray"

JobStatus = Literal["pending", "running", "succeeded", "failed", "stopped"]


@dataclass(frozen=True)
class JobState:
    """What is known of a job.

    Attributes:
        job: Its id.
        status: Where it stands.
        name: Of the campaign.
        run_dir: On the cluster.
        exit_code: As ``pilotwave run`` gives it (0, 2, 3, 4, 130); None while it runs.
        message: One line on why it failed, or nothing.
        submitted: Seconds since the epoch, or None.
        ended: Likewise.
    """

    job: str
    status: JobStatus
    name: str
    run_dir: str
    exit_code: int | None
    message: str = ""
    submitted: float | None = None
    ended: float | None = None


class Jobs(Protocol):
    """A cluster that takes jobs. Every method raises InputError for a job that does not exist."""

    def submit(self, config: CampaignConfig, run_dir: str | None, plugins: Sequence[Path]) -> JobState:
        """Hands a campaign over; one that was begun in that run directory is resumed.

        Args:
            config: Checked here.
            run_dir: On the cluster; a relative one lies in its storage. None: a new one there.
            plugins: Python files, packages, or folders of them that travel with it.

        Raises:
            InputError: A plug-in is missing or too large.
            InfrastructureError: The cluster does not take it.
        """
        ...

    def submit_study(self, study: Any, run_dir: str | None, plugins: Sequence[Path]) -> JobState:
        """Hands a study over, as :meth:`submit` does a campaign.

        Args:
            study: A checked :class:`pilotwave.tuning.config.StudyConfig`.
            run_dir: Its directory on the cluster.
            plugins: As above.
        """
        ...

    def state(self, job: str) -> JobState:
        """Returns where a job stands."""
        ...

    def states(self) -> list[JobState]:
        """Returns where all jobs of ours stand, the newest last."""
        ...

    def logs(self, job: str) -> str:
        """Returns what it has printed so far."""
        ...

    def follow(self, job: str, write: Callable[[str], None]) -> JobState:
        """Passes on what it prints until it has ended."""
        ...

    def stop(self, job: str) -> JobState:
        """Lets it save and stop, and waits for that."""
        ...

    def results(self, job: str, folder: Path) -> None:
        """Brings its run directory back into a folder of this machine.

        Raises:
            InfrastructureError: It cannot be read, or is too large for this way.
        """
        ...


def open_jobs(address: str) -> Jobs:
    """Returns what speaks to a cluster.

    Args:
        address: ``http://host:8265``.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: The cluster refuses our token.
        InfrastructureError: It cannot be reached.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    try:
        opened: Jobs = found[KIND].load()(address)
    except (KeyError, ImportError) as error:
        raise MissingDependencyError(
            "jobs need ray, which is not installed; run: pip install 'pilotwave[ray]'"
        ) from error
    return opened


__all__ = ["JobState", "Jobs", "open_jobs"]
