"""Where a campaign is killed: a private cluster of its driver, or two real nodes, in one way in or another.

A place starts drivers by the real command, finds the processes that may be killed there, by the mark that all of
them carry, strikes, and mends what does not mend itself: a node that died is started again, as an operator would.
May import the modules beside it; Ray is started as a program.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pilotwave.testing.chaos_checks import Kill
from pilotwave.testing.marked_processes import MarkedProcesses
from pilotwave.testing.two_networks import TwoNetworks
from pilotwave.testing.two_nodes import TwoNodeCluster

ACTORS = {"evaluator": "Evaluator", "generator": "Generator", "optimizer": "Optimizer"}
"""From a kind of kill to the class of the actor that is killed."""
ENDS_OPTIMIZER = frozenset({"optimizer", "raylet", "driver"})
"""What an optimizer on a private cluster cannot live through."""
NODE_KINDS = frozenset({"raylet", "node", "partition"})
"""What strikes the second node as a whole."""
EFFECT_SECONDS = 300.0
"""How long what cannot live on may take to be gone."""

_COMMAND = "import sys\nfrom pilotwave.cli import main\nsys.argv[0] = 'pilotwave'\nmain()"
_PREFERS_SECOND = """
import pilotwave_actors.remote_driver as remote_driver
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

def near(node):
    import ray
    second = [item["NodeID"] for item in ray.nodes() if item["Alive"] and "second" in item["Resources"]]
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=[*second, node][0], soft=True)}

remote_driver._near = near
"""


class Place(Protocol):
    """Attributes: ``name``, and ``kinds``, what can be killed here."""

    name: str
    kinds: frozenset[str]

    def drive(self, arguments: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """Starts ``pilotwave`` with these arguments in this folder; its output is appended to the log."""
        ...

    def strike(
        self, kind: str, driver: subprocess.Popen[bytes], settled: int, choice: random.Random
    ) -> Kill | None:
        """Kills one of these, or returns None while there is none to kill."""
        ...

    def ends_driver(self, kind: str) -> bool:
        """Says whether a driver cannot live on after such a kill, so that the campaign has to be resumed."""
        ...

    def mends_slowly(self, kind: str) -> bool:
        """Says whether a node, or a whole cluster, has to come back after such a kill."""
        ...

    def mend(self, kind: str, driver: subprocess.Popen[bytes]) -> None:
        """Waits until what was struck is gone and does what an operator would."""
        ...

    def left(self) -> list[int]:
        """Returns the processes of campaigns that are alive here; none once a campaign has ended."""
        ...


class PrivateCluster:
    """Each driver has a Ray cluster of its own, which ends with it."""

    name = "private cluster"
    kinds = frozenset({*ACTORS, "oracle", "raylet", "driver"})

    def __init__(self) -> None:
        self._marked = MarkedProcesses(f"{secrets.token_hex(8)}-private")

    def drive(self, arguments: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """See :class:`Place`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return _start(arguments, {**kept, **self._marked.environment()}, folder, log)

    def strike(
        self, kind: str, driver: subprocess.Popen[bytes], settled: int, choice: random.Random
    ) -> Kill | None:
        """See :class:`Place`."""
        found = {"raylet": lambda: self._marked.programs("raylet/raylet"), "driver": lambda: [driver.pid]}
        victims = found[kind]() if kind in found else _small(kind, [self._marked])
        if not victims:
            return None
        ends = self.ends_driver(kind)
        workers = set(self._marked.actors(""))
        gone = (lambda: not workers & set(self._marked.actors(""))) if ends or kind == "raylet" else None
        return _kill(kind, self.name, choice.choice(victims), settled, kind in ENDS_OPTIMIZER, gone)

    def ends_driver(self, kind: str) -> bool:
        """See :class:`Place`: one whose raylet dies starts another cluster."""
        return kind == "driver"

    def mends_slowly(self, kind: str) -> bool:
        """See :class:`Place`."""
        return kind == "raylet"

    def mend(self, kind: str, driver: subprocess.Popen[bytes]) -> None:
        """Nothing to be done but to wait for the cluster that the driver starts."""
        if kind == "raylet":
            _wait(lambda: driver.poll() is not None or self._marked.actors("Optimizer"), "another optimizer")

    def left(self) -> list[int]:
        """See :class:`Place`: all of it, the cluster too."""
        return self._marked.all()

    def end(self) -> None:
        """Ends whatever is left."""
        self._marked.end()


class OnTwoNodes:
    """A cluster of two nodes; the second one is struck as a whole.

    Args:
        cluster: Started.
        way: ``"node"``: the driver is on the head, the optimizer with it. ``"client"``: the driver comes through
            Ray Client, and the optimizer prefers the second node, which may be struck.
        networks: Between the nodes, if they can be parted.
        partition_seconds: How long they stay parted.
    """

    def __init__(
        self,
        cluster: TwoNodeCluster,
        way: str,
        networks: TwoNetworks | None = None,
        partition_seconds: float = 30.0,
    ) -> None:
        self.name = f"two nodes, driver {'on one' if way == 'node' else 'outside'}"
        self.kinds = frozenset(
            {*ACTORS, "oracle", "raylet", "node", "driver", *(["partition"] if networks else [])}
        )
        self._cluster = cluster
        self._way = way
        self._networks = networks
        self._seconds = partition_seconds
        self._nodes = [cluster.marked("head"), cluster.marked("second")]
        self._second = cluster.marked("second")

    def drive(self, arguments: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """See :class:`Place`."""
        client = self._way == "client"
        address = self._cluster.client_address if client else self._cluster.address
        environment = self._cluster.environment(RAY_AUTH_MODE="token")
        before = _PREFERS_SECOND if client else ""
        return _start([*arguments, "--address", address], environment, folder, log, before, self._cluster)

    def strike(
        self, kind: str, driver: subprocess.Popen[bytes], settled: int, choice: random.Random
    ) -> Kill | None:
        """See :class:`Place`."""
        if kind in NODE_KINDS:
            return self._strike_second(kind, settled)
        victims = [driver.pid] if kind == "driver" else _small(kind, self._nodes)
        if not victims:
            return None
        ends = self.ends_driver(kind)
        gone = (lambda: not self._actors()) if ends else None
        return _kill(kind, self.name, choice.choice(victims), settled, ends or kind == "optimizer", gone)

    def ends_driver(self, kind: str) -> bool:
        """See :class:`Place`: a campaign of a client's goes on without it, and is followed again."""
        return kind == "driver" and self._way == "node"

    def mends_slowly(self, kind: str) -> bool:
        """See :class:`Place`."""
        return kind in NODE_KINDS

    def mend(self, kind: str, driver: subprocess.Popen[bytes]) -> None:
        """Starts the second node again, once the oracles there had their time to leave receipts."""
        if kind in NODE_KINDS:
            _wait(lambda: not self._second.oracles(), "the oracles of the second node to be gone")
            self._cluster.start_second()

    def left(self) -> list[int]:
        """See :class:`Place`: actors and oracles; the cluster stays."""
        return [*self._actors(), *(pid for node in self._nodes for pid in node.oracles())]

    def _strike_second(self, kind: str, settled: int) -> Kill | None:
        workers = [pid for name in ACTORS.values() for pid in self._second.actors(name)]
        raylets = self._second.programs("raylet/raylet")
        if not workers or not raylets:
            return None
        optimizer = bool(self._second.actors("Optimizer"))
        began = time.time()
        if kind == "node":
            self._second.end()
        elif kind == "raylet":
            os.kill(raylets[0], signal.SIGKILL)
        else:
            assert self._networks is not None
            self._networks.cut()
            time.sleep(self._seconds)
            self._networks.mend()
        # A node that was taken for dead ends by itself once it hears of it.
        _wait(lambda: not self._second.actors(""), "the second node's workers to be gone")
        return Kill(kind, self.name, tuple(workers), self._second.mark, began, time.time(), settled, optimizer)

    def _actors(self) -> list[int]:
        return [pid for node in self._nodes for name in ACTORS.values() for pid in node.actors(name)]


def _small(kind: str, nodes: Sequence[MarkedProcesses]) -> list[int]:
    """Returns the processes of one actor or oracle each."""
    return [pid for node in nodes for pid in (node.oracles() if kind == "oracle" else node.actors(ACTORS[kind]))]


def _kill(
    kind: str, place: str, victim: int, settled: int, ends_optimizer: bool, gone: Callable[[], bool] | None
) -> Kill | None:
    began = time.time()
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:  # it has ended by itself, just now
        return None
    _wait(gone or (lambda: not _is_alive(victim)), f"what a killed {kind} leaves to be gone")
    return Kill(kind, place, (victim,), "", began, time.time(), settled, ends_optimizer)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    return False


def _wait(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + EFFECT_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"waited {EFFECT_SECONDS:.0f} s for {what}"
        time.sleep(0.02)


def _start(
    arguments: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    log: Path,
    before: str = "",
    cluster: TwoNodeCluster | None = None,
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", f"{before}\n{_COMMAND}", *arguments]
    with log.open("ab") as stream:
        return subprocess.Popen(
            command if cluster is None else cluster.inside("head", command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


__all__ = ["ACTORS", "OnTwoNodes", "Place", "PrivateCluster"]
