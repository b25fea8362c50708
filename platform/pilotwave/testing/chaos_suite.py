"""The hundred kills: which, where, and what they need.

One campaign of 500 queries in three legs: on its driver's own Ray cluster; on a cluster of two nodes with the
driver on one of them; through Ray Client with the optimizer on the node that is struck. The nodes are real Ray
nodes, in network namespaces of their own where the system has them (Linux, as root); where not, nodes are killed
instead of parted. May import the modules beside it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pilotwave.testing.chaos import Leg
from pilotwave.testing.chaos_places import OnTwoNodes, PrivateCluster
from pilotwave.testing.two_networks import TwoNetworks, why_no_networks
from pilotwave.testing.two_nodes import TwoNodeCluster

CPUS = 3
"""Of each node: neither has room for four evaluators and a generator."""
PRIVATE = {"evaluator": 7, "generator": 7, "optimizer": 7, "oracle": 7, "raylet": 7, "driver": 7}
ON_A_NODE = {"evaluator": 4, "generator": 4, "optimizer": 4, "raylet": 4, "node": 6, "partition": 5, "driver": 5}
CLIENT = {"evaluator": 3, "generator": 3, "optimizer": 4, "raylet": 4, "node": 4, "partition": 4, "driver": 4}
LEGS = (170, 340, 500)
"""How many queries have ended when each leg ends."""


@dataclass(frozen=True)
class Grounds:
    """What chaos takes place on.

    Attributes:
        private: For drivers with clusters of their own.
        cluster: Of two nodes.
        networks: Between them, or None.
        why_not: Why there are none.
    """

    private: PrivateCluster
    cluster: TwoNodeCluster
    networks: TwoNetworks | None
    why_not: str

    def on_nodes(self, way: str, partition_seconds: float = 30.0) -> OnTwoNodes:
        """Returns the place on the two nodes, see :class:`OnTwoNodes`."""
        return OnTwoNodes(self.cluster, way, self.networks, partition_seconds)

    def possible(self, kills: dict[str, int]) -> dict[str, int]:
        """Returns these kills, with nodes killed where they cannot be parted."""
        counted = Counter(kills)
        if self.networks is None:
            counted["node"] += counted.pop("partition", 0)
        return dict(counted)

    def hundred_kills(self) -> list[Leg]:
        """Returns the legs."""
        return [
            Leg(self.private, LEGS[0], PRIVATE),
            Leg(self.on_nodes("node"), LEGS[1], self.possible(ON_A_NODE)),
            Leg(self.on_nodes("client"), LEGS[2], self.possible(CLIENT)),
        ]


@contextlib.contextmanager
def grounds() -> Iterator[Grounds]:
    """Starts the two nodes; ends everything."""
    private, why_not = PrivateCluster(), why_no_networks()
    with contextlib.nullcontext() if why_not else TwoNetworks() as networks:
        cluster = TwoNodeCluster(CPUS, networks)
        try:
            cluster.start()
            yield Grounds(private, cluster, networks, why_not)
        finally:
            private.end()
            cluster.stop()


__all__ = ["Grounds", "grounds"]
