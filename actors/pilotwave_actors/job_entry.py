"""What a Ray job of ours runs on the cluster: a campaign or a study, or the packing of its results.

::

    python -m pilotwave_actors.job_entry run RUN_DIR --storage DIR --version 1.0 --import my_plugin
    python -m pilotwave_actors.job_entry pack RUN_DIR --storage DIR

The campaign is ``campaign.yaml`` in the working directory, a study ``study.yaml``; one that was begun in the run
directory is resumed. The exit code is that of ``pilotwave run``. May import the core.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pilotwave
from pilotwave.errors import InfrastructureError, InputError

CAMPAIGN_FILE = "campaign.yaml"
STUDY_FILE = "study.yaml"
LARGEST_RESULT = 64 * 2**20
"""Results travel through the job's log; above this, they are fetched from the storage."""
_BEGIN, _END = "-----BEGIN PILOTWAVE RUN-----", "-----END PILOTWAVE RUN-----"


def main(arguments: Sequence[str]) -> int:
    """Does the work and returns the exit code."""
    from pilotwave.cli import guarded

    parser = argparse.ArgumentParser(prog="pilotwave_actors.job_entry")
    parser.add_argument("work", choices=("run", "pack"))
    parser.add_argument("run_dir")
    parser.add_argument("--storage", default="")
    parser.add_argument("--version", default=pilotwave.__version__)
    parser.add_argument("--import", action="append", default=[], dest="plugins")
    given = parser.parse_args(arguments)
    run_dir = place_of(given.run_dir, given.storage)
    if given.work == "pack":
        return guarded(lambda: _print_packed(run_dir))
    return guarded(lambda: _run(run_dir, given.version, given.plugins))


def place_of(run_dir: str, storage: str) -> Path:
    """Says where a run lives on the cluster.

    Args:
        run_dir: As the user gave it; a relative one lies in the storage.
        storage: ``runtime.storage``, or empty: ``PILOTWAVE_STORAGE`` of this node, else a folder in its home.
    """
    base = storage or os.environ.get("PILOTWAVE_STORAGE") or Path.home() / "pilotwave-runs"
    return Path(base) / run_dir


def wrap(place: Path, data: bytes) -> str:
    """Puts a packed run into lines of text that survive a log with other lines in it."""
    text = base64.encodebytes(data).decode()
    return f"{_BEGIN}\n{place}\n{hashlib.sha256(data).hexdigest()}\n{text}{_END}\n"


def unwrap(log: str) -> tuple[str, bytes]:
    """Finds a packed run in a log.

    Returns:
        Where it lives, and its bytes.

    Raises:
        InfrastructureError: There is none, or it is damaged.
    """
    _, begun, rest = log.partition(f"{_BEGIN}\n")
    body, ended, _ = rest.partition(_END)
    if not (begun and ended):
        raise InfrastructureError("the results did not arrive whole; ask for them again: pilotwave jobs results")
    place, digest, text = body.split("\n", 2)
    try:
        data = base64.b64decode(text)
    except ValueError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise InfrastructureError("the results came damaged; ask for them again: pilotwave jobs results")
    return place, data


def _run(run_dir: Path, version: str, plugins: Sequence[str]) -> int:
    launched = time.time()
    if version != pilotwave.__version__:
        raise InfrastructureError(
            f"the cluster has pilotwave {pilotwave.__version__}, the machine that submitted has {version}; install "
            "the same version on both"
        )
    _import_all(plugins)
    if Path(STUDY_FILE).exists():
        from pilotwave.cli.tune import drive as drive_study
        from pilotwave.tuning.study import Study

        study = Study.from_yaml(STUDY_FILE)
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        os.chdir(run_dir.parent)
        return drive_study(study, run_dir, launched, json_output=False)
    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.campaign import Campaign
    from pilotwave.cli.driving import drive

    campaign = Campaign.from_yaml(CAMPAIGN_FILE)
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(run_dir.parent)  # Ray takes the working directory away as soon as the driver has let go of the cluster
    start = campaign.resume if RunDirectory(run_dir).exists() else campaign.run
    return drive(
        campaign.config,
        lambda observe, interrupt: start(run_dir, observe=observe, interrupt=interrupt, launched=launched),
        json_output=False,
    )


def _import_all(plugins: Sequence[str]) -> None:
    for name in plugins:
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"the plug-in {name!r} does not import on the cluster: {reason}") from error


def _print_packed(run_dir: Path) -> int:
    from pilotwave.tuning.ledger import StudyDirectory
    from pilotwave_actors.carrying import pack_folder, pack_run

    data = pack_folder(run_dir) if StudyDirectory(run_dir).exists() else pack_run(run_dir)
    if len(data) > LARGEST_RESULT:
        raise InfrastructureError(
            f"the run has {len(data) / 2**20:.0f} MiB packed, and at most {LARGEST_RESULT // 2**20} MiB come "
            f"this way; copy {run_dir} from the cluster's storage"
        )
    sys.stdout.write(wrap(run_dir, data))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


__all__ = ["CAMPAIGN_FILE", "STUDY_FILE", "main", "place_of", "unwrap", "wrap"]
