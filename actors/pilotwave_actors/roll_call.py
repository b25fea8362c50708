"""Asks the cluster, before anything is paid, whether it is the same house: versions, plug-ins, the run directory.

One small task answers; it knows nothing of pilotwave, so that it can also say that it is not installed there. May
import ray and the core.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pilotwave
from pilotwave.errors import InfrastructureError, InputError

HEAD = {"node:__internal_head__": 0.001}
"""What only the head has: a task that asks for it runs there."""
SECONDS = 120.0
"""How long the first worker of a cluster may take to come up, with its plug-ins."""


@dataclass(frozen=True)
class RollCall:
    """What the cluster said.

    Attributes:
        node: Which node answered.
        sees_run_dir: Whether that node sees the very folder that this machine sees.
        storage: ``PILOTWAVE_STORAGE`` there, or nothing.
    """

    node: str
    sees_run_dir: bool
    storage: str


def call_the_roll(address: str, run_dir: Path, plugins: Sequence[str], *, on_head: bool) -> RollCall:
    """Asks, and refuses a cluster that would not do.

    Args:
        address: For messages.
        run_dir: Exists here; whether it is seen there is told by a mark that is left in it for a moment.
        plugins: Names that must import there.
        on_head: Whether the head shall answer, or any node.

    Raises:
        InputError: A plug-in does not import on the worker.
        InfrastructureError: pilotwave is missing there or of another version, or no worker comes up.
    """
    mark = run_dir / f".seen-{secrets.token_hex(8)}"
    secret = secrets.token_hex(16)
    mark.write_text(secret)
    try:
        said = _ask(address, list(plugins), str(mark), HEAD if on_head else {})
    finally:
        with suppress(OSError):
            mark.unlink()
    _check_versions(address, said)
    for name, failure in said["failures"].items():
        raise InputError(f"the plug-in {name!r} does not import on a worker of {address}: {failure}")
    return RollCall(said["node"], said["mark"] == secret, said["storage"])


def _ask(address: str, plugins: list[str], mark: str, resources: dict[str, float]) -> dict[str, Any]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    # Within a function, so that it is pickled whole instead of by a name that the worker may not know.
    def answer(plugins: list[str], mark: str) -> dict[str, Any]:
        import importlib
        import os
        from importlib.metadata import PackageNotFoundError, version
        from pathlib import Path

        import ray

        try:
            installed = version("pilotwave")
        except PackageNotFoundError:
            installed = ""
        failures = {}
        for name in plugins:
            try:
                importlib.import_module(name)
            except BaseException as error:
                failures[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        try:
            seen = Path(mark).read_text()
        except OSError:
            seen = ""
        storage = os.environ.get("PILOTWAVE_STORAGE", "")
        node = ray.get_runtime_context().get_node_id()
        return {"version": installed, "failures": failures, "mark": seen, "storage": storage, "node": node}

    task = ray.remote(answer).options(num_cpus=0, resources=resources, max_retries=1)
    try:
        said: dict[str, Any] = ray.get(task.remote(plugins, mark), timeout=SECONDS)
    except GetTimeoutError:
        raise InfrastructureError(
            f"no worker of the cluster at {address} came up within {SECONDS:.0f} s; look at its nodes"
        ) from None
    except RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise InfrastructureError(f"a worker of the cluster at {address} could not start: {reason}") from error
    return said


def _check_versions(address: str, said: dict[str, Any]) -> None:
    here, there = pilotwave.__version__, said["version"]
    if not there:
        raise InfrastructureError(
            f"pilotwave is not installed on the cluster at {address}; install version {here} in its image "
            "or environment"
        )
    if there != here:
        raise InfrastructureError(
            f"the cluster at {address} has pilotwave {there}, this machine has {here}; install the same "
            "version on both"
        )


__all__ = ["HEAD", "RollCall", "call_the_roll"]
