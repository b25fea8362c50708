"""Two networks of their own on one kernel, joined by a cable that can be pulled: for partitions of a cluster.

Network namespaces (Linux, as root): a process in one has its own addresses and ports and reaches the other over the
cable alone; files are shared all the same. May import the standard library.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Sequence

NODES = ("head", "second")


class TwoNetworks:
    """Use it as a context manager; networks and cable are gone afterwards."""

    def __init__(self) -> None:
        word = secrets.token_hex(3)
        # 198.18.0.0/15 is set aside for tests of networks (RFC 2544); nothing real is hidden by it.
        subnet = f"198.18.{secrets.randbelow(256)}"
        self._names = {node: f"pw-{word}-{node}" for node in NODES}
        self._addresses = {node: f"{subnet}.{number}" for number, node in enumerate(NODES, 1)}
        self._ends = {node: f"pw{word}{number}" for number, node in enumerate(NODES)}

    def __enter__(self) -> TwoNetworks:
        """Makes the networks and puts the cable in.

        Raises:
            OSError: The system does not allow it; the message says why.
        """
        try:
            for name in self._names.values():
                _ip("netns", "add", name)
            head, second = (self._ends[node] for node in NODES)
            _ip("link", "add", head, "type", "veth", "peer", "name", second)
            for node in NODES:
                _ip("link", "set", self._ends[node], "netns", self._names[node])
                _ip("-n", self._names[node], "addr", "add", f"{self._addresses[node]}/24", "dev", self._ends[node])
                _ip("-n", self._names[node], "link", "set", "lo", "up")
                _ip("-n", self._names[node], "link", "set", self._ends[node], "up")
                # Programs tell their own address by asking which one would be used for the outside.
                _ip("-n", self._names[node], "route", "add", "default", "dev", self._ends[node])
        except OSError:
            self._remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Takes everything away."""
        self._remove()

    def address(self, node: str) -> str:
        """Returns the address of a node."""
        return self._addresses[node]

    def inside(self, node: str, command: Sequence[str]) -> list[str]:
        """Returns the command as it is given in a node's network."""
        return ["ip", "netns", "exec", self._names[node], *command]

    def cut(self) -> None:
        """Swallows every packet at both ends: nobody is told, as an interface that goes down would tell."""
        for node in NODES:
            self._queue(node, "add", "pfifo", "limit", "0")

    def mend(self) -> None:
        """Lets packets through again."""
        for node in NODES:
            self._queue(node, "delete")

    def _queue(self, node: str, verb: str, *discipline: str) -> None:
        _run(self.inside(node, ["tc", "qdisc", verb, "dev", self._ends[node], "root", *discipline]))

    def _remove(self) -> None:
        for name in self._names.values():
            with contextlib.suppress(OSError):
                _ip("netns", "delete", name)


def why_no_networks() -> str:
    """Returns why this machine cannot have networks of their own, or nothing if it can."""
    try:
        with TwoNetworks() as networks:
            networks.cut()
            networks.mend()
    except OSError as error:
        return f"needs network namespaces, as root on Linux, with ip and tc: {error}"
    return ""


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


__all__ = ["NODES", "TwoNetworks", "why_no_networks"]
