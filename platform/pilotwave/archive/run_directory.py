"""The directory of one run: which files it holds, whose it is, and a lock so that one driver has it.

::

    RUN_DIR/
        campaign.yaml        the resolved campaign
        ledger.sqlite        everything asked and answered
        checkpoints/         states of the algorithm
        receipts/            answers on their way into the ledger
        results/             tables and pictures for people
        control/             commands to the driver
        logs/                what happened, a JSON object a line

May import :mod:`pilotwave.archive`, :mod:`pilotwave.config` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from pilotwave.archive.ledger import Ledger
from pilotwave.config.campaign import CampaignConfig
from pilotwave.config.loading import apply_override, check_campaign, read_yaml
from pilotwave.errors import ConfigError, RunDirectoryError, StorageError
from pilotwave.storage import held_folder, write_atomically


def no_run_in(path: Path) -> str:
    """Returns the one line for a directory that holds no run, but perhaps a study of several."""
    if (path / "study.jsonl").exists():
        return f"{path} is a study; go on with: pilotwave tune --resume {path}; its runs are in {path / 'trials'}"
    return f"{path}: no run here; give the directory of a run, e.g. runs/demo"


class RunDirectory:
    """A run's directory; nothing is created until :meth:`create`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def campaign_file(self) -> Path:
        """The resolved campaign."""
        return self.path / "campaign.yaml"

    @property
    def ledger_file(self) -> Path:
        """The ledger."""
        return self.path / "ledger.sqlite"

    @property
    def checkpoints(self) -> Path:
        """States of the algorithm."""
        return self.path / "checkpoints"

    @property
    def receipts(self) -> Path:
        """Answers on their way into the ledger."""
        return self.path / "receipts"

    @property
    def results(self) -> Path:
        """Tables and pictures for people."""
        return self.path / "results"

    @property
    def control(self) -> Path:
        """Commands to the driver; made when the first is sent."""
        return self.path / "control"

    @property
    def logs(self) -> Path:
        """What happened, for people and for collectors of logs; made by the first driver that writes one."""
        return self.path / "logs"

    def exists(self) -> bool:
        """Says whether a run was begun here."""
        return self.ledger_file.exists()

    def create(self, config: CampaignConfig) -> None:
        """Makes the directory, the resolved campaign and an empty ledger.

        Raises:
            RunDirectoryError: It holds something already.
            StorageError: It cannot be written.
        """
        if self.exists():
            raise RunDirectoryError(self.whose(config))
        if self.path.is_dir() and any(item.name not in (".lock", ".writer") for item in self.path.iterdir()):
            raise RunDirectoryError(f"{self.path} is not empty and holds no run; choose another --run-dir")
        try:
            for folder in (self.checkpoints, self.receipts, self.results):
                folder.mkdir(parents=True, exist_ok=True)
            fields = config.model_dump(mode="json")
            write_atomically(self.campaign_file, yaml.safe_dump(fields, sort_keys=False).encode())
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}; choose another --run-dir") from error
        Ledger.create(self.ledger_file, {"campaign": config.identity(), "name": config.name}).close()

    def whose(self, config: CampaignConfig) -> str:
        """Returns the one line for a directory that holds a run already."""
        try:
            self.check_identity(config)
        except RunDirectoryError as error:
            return str(error)
        return f"{self.path} holds this campaign already; continue it with: pilotwave resume {self.path}"

    def config(self, overrides: Sequence[str] = ()) -> CampaignConfig:
        """Reads the resolved campaign back.

        Args:
            overrides: ``"budget.queries=400"``; only what does not change the questions may be changed.

        Raises:
            RunDirectoryError: There is no run here, or its campaign does not match its ledger.
        """
        if not self.exists():
            raise RunDirectoryError(no_run_in(self.path))
        try:
            fields, lines = read_yaml(self.campaign_file)
            for override in overrides:
                apply_override(fields, override)
            config = check_campaign(fields, source=str(self.campaign_file), base_dir=self.path, lines=lines)
        except ConfigError as error:
            raise RunDirectoryError(f"{self.path} cannot be resumed: {error}") from error
        self.check_identity(config)
        return config

    def check_identity(self, config: CampaignConfig) -> None:
        """Makes sure that the ledger belongs to this campaign.

        Raises:
            RunDirectoryError: It does not.
        """
        with Ledger.open(self.ledger_file, read_only=True) as ledger:
            if ledger.meta().get("campaign") != config.identity():
                raise RunDirectoryError(
                    f"{self.path} belongs to another campaign; choose another --run-dir, or undo the change in "
                    f"{self.campaign_file.name} (queries, failures, runtime, tracking, where the archive is, "
                    "and how the oracle is asked, may be changed)"
                )

    def is_locked(self) -> bool:
        """Says whether a driver is at work here."""
        return self._is_held(".lock")

    def is_written(self) -> bool:
        """Says whether the loop is at work here, with a driver that looks on or without one."""
        return self._is_held(".writer")

    def _is_held(self, name: str) -> bool:
        try:
            with open(self.path / name, "rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def become_writer(self, seconds: float) -> int:
        """Waits until no other process writes the ledger (a killed driver's optimizer dies a moment later).

        Returns:
            The descriptor of the lock; closing it, or dying, lets the next writer in.

        Raises:
            RunDirectoryError: Another process kept writing.
        """
        handle = os.open(self.path / ".writer", os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(handle)
                    raise RunDirectoryError(
                        f"{self.path}: an earlier optimizer still writes the ledger after {seconds:.0f} s; "
                        "end it, then resume"
                    ) from None
                time.sleep(0.05)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for one driver; the lock goes with the process, also after ``kill -9``.

        Raises:
            RunDirectoryError: Another process holds it.
        """
        with held_folder(self.path, RunDirectoryError):
            yield


__all__ = ["RunDirectory", "no_run_in"]
