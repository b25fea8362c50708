"""A connection to a Ray cluster, or a private one that ends with this process. May import ray and the core."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pilotwave.errors import BreakerError, InfrastructureError, InputError
from pilotwave_actors.authentication import say_mode
from pilotwave_actors.packaging import Plugins
from pilotwave_actors.reachable import check_reachable, resolve

CHILDREN_LIVE_ON = ("RAY_kill_child_processes_on_worker_exit", "0")
"""Read by Ray's processes when a node starts. An evaluator that goes down with its optimizer would otherwise take
the guard of its oracle along, and an answer that is on its way, and paid for, would have no time to leave its
receipt. The guards end oracles by themselves."""
CLIENT_PAUSE_SECONDS = 5.0
LIVES = 4
"""How often what keeps dying (an optimizer, a private cluster) is made in a row with nothing answered between."""


@contextmanager
def connected(address: str, logical_cpus: int, plugins: Plugins | None = None) -> Iterator[str]:
    """Connects to a cluster, or starts a private one; a connection that is there already is used and kept.

    Args:
        address: ``"local"`` for a private one, ``"auto"``, ``"host:6379"`` or ``"ray://host:10001"``.
        logical_cpus: Of a private one: enough for every actor at once; on a small machine they share the cores.
        plugins: What shall be importable on every worker.

    Yields:
        The address that was meant, e.g. what ``auto`` stood for.

    Raises:
        InputError: The cluster refuses our token, there is none, or plug-ins cannot travel any more.
        InfrastructureError: The cluster cannot be reached or started, or has other versions of Ray or Python.
        ClusterLostError: The private one died meanwhile.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        os.environ.setdefault(*CHILDREN_LIVE_ON)
    say_mode(address)
    import ray

    environment = plugins.runtime_env() if plugins is not None else {}
    if ray.is_initialized():  # a notebook or a test is connected already
        if environment:
            raise InputError(
                "runtime.plugins: this process is connected to Ray already, and plug-ins travel when it connects; "
                "give ray.init(runtime_env={'py_modules': [...]}) yourself, or call ray.shutdown() before"
            )
        yield address
        return
    address = resolve(address)
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": logical_cpus}
    else:
        check_reachable(address)
    _check_mode_was_heard()
    if environment:
        options["runtime_env"] = environment
    try:
        _enter(address, options)
    except InfrastructureError as error:
        # Once more: what makes up a private cluster may have been killed meanwhile, and a Ray Client server cannot
        # give a port away at once that it had given to a client who has just been lost.
        if address != "local" and "Starting Ray client server failed" not in str(error):
            raise
        if address != "local":
            time.sleep(CLIENT_PAUSE_SECONDS)
        _enter(address, options)
    try:
        yield address
    except Exception as error:
        # Whatever it is that fails when a cluster dies under it; what a campaign says of itself is no such thing.
        if isinstance(error, InputError | BreakerError) or not private_cluster_died():
            raise
        raise ClusterLostError(
            f"the private Ray cluster died {LIVES} times in a row; all answers are in the ledger: see what kills "
            "it (memory?), then `pilotwave resume`"
        ) from error
    finally:
        ray.shutdown()


class ClusterLostError(InfrastructureError):
    """The private cluster of this process is gone, and whoever worked in it; the run is on the disk."""


def is_connected() -> bool:
    """Says whether this process is connected to a cluster, without importing Ray, which would settle its mode."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def through_client() -> bool:
    """Says whether this process speaks to the cluster through Ray Client."""
    from ray.util.client import ray as client

    return bool(client.is_connected())  # type: ignore[no-untyped-call]


def private_cluster_died() -> bool:
    """Says whether this process has started a cluster of its own and what makes it one is dead."""
    from ray._private import worker

    node = worker._global_node
    if node is None or not node.is_head():
        return False
    return any(kind in ("raylet", "gcs_server") for kind, _ in node.dead_processes())


def nodes_in_words(nodes: list[dict[str, Any]]) -> dict[str, Mapping[str, float]]:
    """Returns what each living node has in all, under a name that tells two nodes of one host apart."""
    return {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": node["Resources"] for node in nodes if node["Alive"]
    }


def has_autoscaler() -> bool:
    """Says whether nodes may come by themselves.

    A cluster without an autoscaler still reports a status in which every node is a type of its own
    (``node_<id>``); one that an autoscaler built names its node types.
    """
    import json

    import ray
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_initialized

    initialized: bool = _internal_kv_initialized()  # type: ignore[no-untyped-call]
    if through_client() or not initialized:
        status: bytes | None = ray.get(ray.remote(_autoscaler_status).options(num_cpus=0).remote())
    else:
        status = _internal_kv_get("__autoscaling_status")
    try:
        report = json.loads(status or b"{}").get("autoscaler_report") or {}
    except ValueError:
        return False
    types = {*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})}
    return any(not kind.startswith("node_") for kind in types)


def _autoscaler_status() -> bytes | None:
    from ray.experimental.internal_kv import _internal_kv_get

    status: bytes | None = _internal_kv_get("__autoscaling_status")
    return status


def _check_mode_was_heard() -> None:
    """Ray reads the mode once, when it is imported; one that was said later would be ignored without a word."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    wanted = os.environ["RAY_AUTH_MODE"].lower()
    if is_token_auth_enabled() != (wanted == "token"):
        raise InputError(
            f"this process imported ray before RAY_AUTH_MODE was {wanted!r}; set it in its environment"
        )


def _enter(address: str, options: Mapping[str, Any]) -> None:
    import ray

    try:
        with _signal_handlers_kept():
            ray.init(address=address, namespace=f"pilotwave-{uuid.uuid4().hex[:8]}", **options)
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()  # what is half connected would spoil the next attempt
        reason = " ".join(str(error).split()) or type(error).__name__
        if "ersion mismatch" in reason:
            raise InfrastructureError(
                f"the cluster at {address} and this machine differ: {reason[:400]}; install the "
                "cluster's versions here"
            ) from error
        raise InfrastructureError(
            f"Ray at {address!r} cannot be reached or started: {reason[:300]}; check the address, the "
            f"cluster and RAY_AUTH_MODE (it is {os.environ['RAY_AUTH_MODE']!r})"
        ) from error


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


__all__ = [
    "CHILDREN_LIVE_ON",
    "LIVES",
    "ClusterLostError",
    "connected",
    "has_autoscaler",
    "is_connected",
    "nodes_in_words",
    "private_cluster_died",
    "through_client",
]
