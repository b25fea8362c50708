"""A real Ray cluster of two nodes on this machine, with token authentication, for tests of the ways in.

Each node is a ``ray start --block`` with ports, a session and a temporary folder of its own; every process that
comes of it carries a mark in its environment, and only processes with that mark are ever ended, by their id. A
node that dies is noticed within seconds, by the health-check settings that docs/clusters.md recommends. May import
the standard library and the modules beside it; Ray is started as a program.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pilotwave.testing.marked_processes import MARK, MarkedProcesses
from pilotwave.testing.two_networks import TwoNetworks

HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node's death is noticed in one to two seconds instead of fifteen."""
START_SECONDS = 180.0
"""How long a node may take to come up on a busy machine."""


class TwoNodeCluster:
    """A head and a node called ``second``, each with CPUs and one custom resource of its name.

    Args:
        cpus: Logical ones of each node.
        networks: One for each node, if they shall not share the host's; opened.

    Attributes:
        address: ``host:port`` for drivers on a node.
        client_address: ``ray://host:port``.
        jobs_address: ``http://host:port``.
        token_file: Holds the cluster's token.
        storage: A folder that stands for storage which all nodes share.
    """

    def __init__(self, cpus: int = 4, networks: TwoNetworks | None = None) -> None:
        # Short: the paths of Unix sockets may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pw-"))
        self.storage = self.folder / "storage"
        self.token_file = self.folder / "token"
        self.token_file.write_text(secrets.token_hex(32))
        self.token_file.chmod(0o600)
        self._cpus = cpus
        self._networks = networks
        self._mark = secrets.token_hex(8)
        self._ports = _free_ports(14)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._host = networks.address("head") if networks is not None else _own_address()
        self.address = f"{self._host}:{self._ports[0]}"
        self.client_address = f"ray://{self._host}:{self._ports[1]}"
        self.jobs_address = f"http://{self._host}:{self._ports[2]}"

    def start(self) -> None:
        """Starts both nodes and waits until they know each other.

        Raises:
            AssertionError: They did not come up; the logs are in the message.
        """
        self.storage.mkdir(parents=True, exist_ok=True)
        self.start_head()
        self.start_second()

    def start_head(self, options: Sequence[str] = ()) -> None:
        """Starts the head alone and waits until it is up.

        Args:
            options: Further ones of ``ray start``.
        """
        port, client, dashboard = map(str, self._ports[:3])
        head = ["--head", "--port", port, "--ray-client-server-port", client]
        head += ["--dashboard-host", self._host, "--dashboard-port", dashboard, *options]
        self._start_node("head", self._ports[3:8], head)
        self.wait_until(lambda: self._log_of("head").count("Ray runtime started"), "the head's start")

    def start_second(self) -> None:
        """Starts the second node, or starts it again after it was killed."""
        if "second" in self._nodes:
            self._reap("second")
        self._start_node("second", self._ports[8:13], ["--address", self.address])
        self.wait_until(lambda: self._log_of("second").count("Ray runtime started"), "the second node's start")

    def environment(self, **others: str) -> dict[str, str]:
        """Returns the environment of a user who has the token in a file, and of nobody who is on a node."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {
            **kept,
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_TMPDIR": str(self.folder / "nowhere"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            **others,
        }

    def environment_on_node(self, **others: str) -> dict[str, str]:
        """Returns the environment of a user who is on a node, where ``auto`` finds the cluster."""
        return self.environment(RAY_TMPDIR=str(self.folder), **others)

    def processes(self, node: str) -> list[int]:
        """Returns the ids of all living processes of a node, Ray's and those that its workers started."""
        return self.marked(node).all()

    def marked(self, node: str) -> MarkedProcesses:
        """Returns the processes of a node, to be looked through."""
        return MarkedProcesses(f"{self._mark}-{node}")

    def inside(self, node: str, command: Sequence[str]) -> list[str]:
        """Returns the command as it is given where the node is."""
        return list(command) if self._networks is None else self._networks.inside(node, command)

    def raylet(self, node: str) -> int:
        """Returns the id of the process whose death is the node's death."""
        (found,) = self.marked(node).programs("raylet/raylet")
        return found

    def workers(self, node: str, actor: str) -> list[int]:
        """Returns the processes of an actor class on a node, e.g. ``"Optimizer"``."""
        return self.marked(node).actors(actor)

    def kill_node(self, node: str) -> None:
        """Kills the raylet of a node, no more: its workers notice and end, a moment later."""
        os.kill(self.raylet(node), signal.SIGKILL)

    def stop(self) -> None:
        """Ends every process of both nodes and removes the temporary folder."""
        for node in list(self._nodes):
            self._reap(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_until(self, happened: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
        """Waits for something.

        Raises:
            AssertionError: It did not happen in time; the nodes' logs are in the message.
        """
        deadline = time.monotonic() + seconds
        while not happened():
            logs = "\n".join(f"--- {node}\n{self._log_of(node)[-2000:]}" for node in self._nodes)
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}\n{logs}"
            time.sleep(0.1)

    def _start_node(self, node: str, ports: Sequence[int], options: Sequence[str]) -> None:
        listen, agent, environment, manager, objects = map(str, ports)
        # Worker ports are chosen by the system: two nodes on one host must not share a range.
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", *options]
        command += ["--dashboard-agent-listen-port", listen, "--dashboard-agent-grpc-port", agent]
        command += ["--runtime-env-agent-port", environment, "--node-manager-port", manager]
        command += ["--object-manager-port", objects, "--min-worker-port", "0", "--max-worker-port", "0"]
        command += ["--num-cpus", str(self._cpus), "--num-gpus", "0", "--resources", json.dumps({node: self._cpus})]
        command += ["--object-store-memory", "100000000", "--disable-usage-stats"]
        if "--head" in options:
            command += ["--temp-dir", str(self.folder)]
        if self._networks is not None:
            command += ["--node-ip-address", self._networks.address(node)]
        variables = {"RAY_AUTH_MODE": "token", "RAY_kill_child_processes_on_worker_exit": "0", **HEALTH_CHECKS}
        variables |= {MARK: self.marked(node).mark, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with self._log_file(node).open("wb") as log:
            self._nodes[node] = subprocess.Popen(
                self.inside(node, command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment_on_node(**variables),
                start_new_session=True,
            )

    def _reap(self, node: str) -> None:
        """Kills what is left of a node, until nothing is."""
        self.marked(node).end()
        self._nodes.pop(node).wait()

    def _log_file(self, node: str) -> Path:
        return self.folder / f"{node}.log"

    def _log_of(self, node: str) -> str:
        return self._log_file(node).read_text(errors="replace")


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, seconds: float = 240.0
) -> subprocess.CompletedProcess[str]:
    """Runs ``pilotwave`` as a user does and returns how it ended."""
    program = Path(sys.executable).parent / "pilotwave"
    return subprocess.run(
        [str(program), *arguments],
        env=dict(environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _own_address() -> str:
    """Returns this host's address as Ray sees it: Ray puts it in the place of the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent; it only picks the interface
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _free_ports(count: int) -> list[int]:
    """Finds free ports below the range from which the system gives out others meanwhile."""
    found: list[int] = []
    held: list[socket.socket] = []
    candidate = 20000 + secrets.randbelow(6000)
    while len(found) < count:
        candidate += 1
        probe = socket.socket()
        try:
            probe.bind(("", candidate))
        except OSError:
            probe.close()
            continue
        held.append(probe)
        found.append(candidate)
    for probe in held:
        probe.close()
    return found


__all__ = ["HEALTH_CHECKS", "MARK", "TwoNodeCluster", "run_command"]
