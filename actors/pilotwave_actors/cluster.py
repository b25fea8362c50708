"""A connection to a Ray cluster, or a private one that ends with this process. May import ray and the core."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pilotwave.errors import InfrastructureError


@contextmanager
def connected(address: str, logical_cpus: int) -> Iterator[None]:
    """Connects to a cluster, or starts a private one; a connection that is there already is used and kept.

    Args:
        address: ``"local"`` for a private one, ``"auto"``, ``"host:6379"`` or ``"ray://host:10001"``.
        logical_cpus: Of a private one: enough for every actor at once; on a small machine they share the cores.

    Raises:
        InfrastructureError: It cannot be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    is_local = address == "local"
    # Said on purpose: a head would turn tokens on by itself and then refuse its own second node.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled" if is_local else "token")
    import ray

    if ray.is_initialized():  # a notebook or a test is connected already
        yield
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if is_local:
        options |= {"include_dashboard": False, "num_cpus": logical_cpus}
    try:
        with _signal_handlers_kept():
            ray.init(address=address, namespace=f"pilotwave-{uuid.uuid4().hex[:8]}", **options)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InfrastructureError(
            f"Ray at {address!r} cannot be reached or started: {reason}; check the address, the "
            f"cluster and RAY_AUTH_MODE (it is {os.environ['RAY_AUTH_MODE']!r})"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray puts its own handler on SIGTERM; the driver's has to stay, since it saves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["connected"]
