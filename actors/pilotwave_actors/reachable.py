"""Knocks before it enters: is there a cluster at this address, and does it accept our token?

Ray itself waits up to a minute for an address that nobody answers at, and takes a wrong token for a dead cluster;
one small question with a time limit tells them apart. May import grpc and requests, which come with Ray,
and the core.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pilotwave.errors import InfrastructureError, InputError
from pilotwave_actors.authentication import refused, token_for

SECONDS = 5.0
"""How long an answer may take."""
_HEAD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_CLIENT_SERVER = "/ray.rpc.RayletDriver/ClusterInfo"
_PING = b"\x08\x06"
"""A ClusterInfoRequest whose type is PING, in protocol-buffer bytes."""


def resolve(address: str) -> str:
    """Returns the address that ``auto`` stands for; any other is returned as it is.

    ``RAY_ADDRESS`` comes first, as everywhere in Ray, then the cluster that was started on this machine.

    Raises:
        InfrastructureError: No cluster is known here.
    """
    if address != "auto":
        return address
    known = os.environ.get("RAY_ADDRESS", "")
    if known and known not in ("auto", "local"):
        return known
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    for place in (Path(folder) / "ray", Path(folder)):
        try:
            found = (place / "ray_current_cluster").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if found:
            return found
    raise InfrastructureError(
        "address auto: this machine belongs to no Ray cluster; give --address host:6379 or ray://host:10001, or "
        "set RAY_ADDRESS"
    )


def check_reachable(address: str) -> None:
    """Asks a head or a Ray Client server whether it is there.

    Args:
        address: ``host:6379`` or ``ray://host:10001``.

    Raises:
        InputError: It refuses our token, or there is none.
        InfrastructureError: Nobody answers, or somebody else than Ray.
    """
    import grpc  # type: ignore[import-untyped]

    token = token_for(address)
    through_client = address.startswith("ray://")
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address.removeprefix("ray://"), options=[("grpc.enable_http_proxy", 0)]) as channel:
        call: Any = channel.unary_unary(_CLIENT_SERVER if through_client else _HEAD)
        try:
            call(_PING if through_client else b"", timeout=SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            raise _explain(address, through_client, token, error) from None


def check_dashboard(address: str) -> None:
    """Asks the dashboard, through which jobs go, whether it is there.

    Args:
        address: ``http://host:8265``.

    Raises:
        InputError: It refuses our token, there is none, or the address is of another kind.
        InfrastructureError: Nobody answers, or somebody else than Ray.
    """
    if not address.startswith(("http://", "https://")):
        raise InputError(
            f"--address: expected http://host:8265, the address of the cluster's dashboard, got {address!r}"
        )
    token = token_for(address)
    import requests

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = requests.get(f"{address}/api/version", headers=headers, timeout=SECONDS)
    except requests.RequestException as error:
        reason = "no answer in time" if isinstance(error, requests.Timeout) else "the connection failed"
        raise InfrastructureError(
            f"nobody can be reached at {address} ({reason}); check the address, that the cluster's dashboard is "
            "up, and that its port is open to this machine"
        ) from None
    if answer.status_code in (401, 403):
        raise refused(address, token)
    try:
        answer.json()["ray_version"]
    except (ValueError, KeyError, TypeError):
        raise InfrastructureError(
            f"what answers at {address} is no Ray dashboard (HTTP {answer.status_code}); check the address and "
            "the port"
        ) from None


def _explain(address: str, through_client: bool, token: str | None, error: Any) -> InputError | InfrastructureError:
    import grpc

    code = error.code()
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return refused(address, token)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        expected = "a Ray Client server (10001)" if through_client else "a Ray head (6379)"
        other = "host:6379" if through_client else "ray://host:10001"
        return InfrastructureError(
            f"what answers at {address} is not {expected}; check the port, or did you mean {other}?"
        )
    reason = (
        "no answer" if code is grpc.StatusCode.DEADLINE_EXCEEDED else _last_reason(error.details() or str(code))
    )
    return InfrastructureError(
        f"nobody can be reached at {address} ({reason}); check the address, that the cluster is up, and that its "
        "port is open to this machine"
    )


def _last_reason(details: str) -> str:
    return details.rpartition("last error: ")[2].strip()[:200]


__all__ = ["check_dashboard", "check_reachable", "resolve"]
