"""Which atoms are bonded, and how: from united-atom positions to bond orders.

Connectivity comes from a distance threshold per element pair. Bond orders come from an exact branch-and-bound
search: among all assignments in which every valence is met, the one whose bond lengths fit best. In *strict*
mode the sampled hydrogen counts are binding; in *repair* mode they are soft evidence, and the search minimises
bond-length chi-squared + `HYDROGEN_PENALTY` * (hydrogens added or removed), again exactly.

Small rings cannot hold a linear atom, so triple bonds and cumulated double bonds inside rings of up to seven
atoms are not admitted: an oracle that rewards them would otherwise be fed impossible molecules.

May import: numpy and `representation`; neither torch nor RDKit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotwave.backbones.molecule.representation import MOST_HYDROGENS, VALENCE

HYDROGEN_PENALTY = 8.0
LARGEST_STRAINED_RING = 7
MOST_NODES = 1_000_000
"""Of the search: a few seconds. Molecules need hundreds; only a tangle of 27 atoms, which no bond order makes a
molecule, comes near, and a campaign must not wait for it."""

# Mean and spread (Å) of bond lengths in QM9, by element pair, Kekulé order and surroundings: for a single bond how
# many of its two atoms have a multiple bond, for a multiple bond how many of them have a neighbour that has
# another one. Pairs of 8,000 molecules; spreads are floored at 0.03 Å, so that a sample's own noise is not taken
# for chemistry, and surroundings that do not occur repeat their neighbour's.
BOND_LENGTHS: dict[str, dict[int, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]] = {
    "CC": {
        1: ((1.532, 0.030), (1.501, 0.032), (1.445, 0.040)),
        2: ((1.335, 0.030), (1.363, 0.030), (1.377, 0.030)),
        3: ((1.203, 0.030), (1.207, 0.030), (1.212, 0.030)),
    },
    "CN": {
        1: ((1.478, 0.030), (1.392, 0.035), (1.370, 0.030)),
        2: ((1.265, 0.030), (1.303, 0.030), (1.314, 0.030)),
        3: ((1.156, 0.030), (1.158, 0.030), (1.158, 0.030)),
    },
    "CO": {
        1: ((1.426, 0.030), (1.362, 0.030), (1.362, 0.030)),
        2: ((1.204, 0.030), (1.209, 0.030), (1.209, 0.030)),
    },
    "CF": {1: ((1.341, 0.030), (1.329, 0.030), (1.329, 0.030))},
    "NN": {
        1: ((1.420, 0.040), (1.350, 0.030), (1.353, 0.030)),
        2: ((1.251, 0.030), (1.283, 0.030), (1.318, 0.030)),
    },
    "NO": {
        1: ((1.430, 0.040), (1.405, 0.033), (1.405, 0.033)),
        2: ((1.210, 0.040), (1.210, 0.040), (1.210, 0.040)),
    },
    "CS": {
        1: ((1.822, 0.030), (1.728, 0.032), (1.772, 0.040)),
        2: ((1.650, 0.030), (1.660, 0.030), (1.670, 0.030)),
    },
    "CCl": {1: ((1.790, 0.030), (1.724, 0.030), (1.724, 0.030))},
    "NS": {
        1: ((1.680, 0.030), (1.686, 0.030), (1.660, 0.040)),
        2: ((1.550, 0.030), (1.550, 0.030), (1.550, 0.030)),
    },
    "OS": {
        1: ((1.640, 0.030), (1.634, 0.030), (1.634, 0.030)),
        2: ((1.490, 0.030), (1.449, 0.030), (1.449, 0.030)),
    },
    "SS": {1: ((2.050, 0.030), (2.050, 0.030), (2.050, 0.030))},
    "OO": {1: ((1.450, 0.050), (1.450, 0.050), (1.450, 0.050))},
}

# Longest distance (Å) still taken for a bond: between the longest bond and the shortest non-bonded distance
# in QM9 (CC 1.67 and 1.77, CN 1.62 and 1.90, CO 1.53 and 2.03, NN 1.40 and 2.08, NO 1.57 and 2.13).
BOND_THRESHOLDS: dict[str, float] = {
    "CC": 1.72, "CN": 1.74, "CO": 1.72, "CF": 1.70, "NN": 1.72, "NO": 1.75,
    "OO": 1.75, "FN": 1.70, "FO": 1.70, "FF": 1.70,
    "CS": 2.04, "NS": 2.04, "OS": 2.00, "SS": 2.30, "FS": 1.90,
    "CCl": 2.05, "ClN": 2.00, "ClO": 2.00, "ClF": 2.00, "ClS": 2.30, "ClCl": 2.30,
}  # fmt: skip


@dataclass(frozen=True)
class PerceivedBonds:
    """An assignment in which every valence is met.

    Attributes:
        bonds: (first atom, second atom, order) for every bond.
        hydrogens: hydrogens on each atom.
        chi_squared: sum over bonds of ((length - mean) / spread)².
        repaired_hydrogens: how many hydrogens differ from the sampled ones, summed over atoms.
    """

    bonds: tuple[tuple[int, int, int], ...]
    hydrogens: tuple[int, ...]
    chi_squared: float
    repaired_hydrogens: int


def pair_key(first: str, second: str) -> str:
    """Names an element pair independently of its order: `CN` for nitrogen and carbon."""
    return first + second if first <= second else second + first


def valence_of(element: str, neighbours: int) -> int:
    """Returns the valence of an atom with so many heavy neighbours.

    Sulphur with two neighbours has two bonds or a thione's double one; every further neighbour is an oxygen or
    nitrogen that oxidises it: three make a sulphoxide (4), four a sulphone or sulphonamide (6).
    """
    valences = VALENCE[element]
    return valences[min(max(neighbours - 2, 0), len(valences) - 1)]


def connect(elements: Sequence[str], positions: NDArray[np.floating]) -> list[tuple[int, int, float]]:
    """Lists the bonded pairs.

    Args:
        elements: element symbols, one per atom.
        positions: coordinates in Å, shape (atoms, 3).

    Returns:
        (first atom, second atom, distance in Å) for each pair closer than its threshold.
    """
    coordinates = np.asarray(positions, dtype=np.float64)
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1).tolist()
    return [
        (first, second, distances[first][second])
        for first in range(len(elements))
        for second in range(first + 1, len(elements))
        if distances[first][second] < BOND_THRESHOLDS[pair_key(elements[first], elements[second])]
    ]


def is_connected(atoms: int, edges: Sequence[tuple[int, int, float]]) -> bool:
    """Says whether the bonded pairs join all atoms into one fragment."""
    neighbours = _neighbours(atoms, edges)
    seen, frontier = {0}, [0]
    while frontier:
        for neighbour in neighbours[frontier.pop()]:
            if neighbour not in seen:
                seen.add(neighbour)
                frontier.append(neighbour)
    return len(seen) == atoms


def assign_bond_orders(
    elements: Sequence[str],
    hydrogens: Sequence[int],
    edges: Sequence[tuple[int, int, float]],
    hydrogen_penalty: float = math.inf,
) -> PerceivedBonds | None:
    """Finds the bond orders of least cost, exactly unless the search passes `MOST_NODES`.

    Args:
        elements: element symbols, one per atom.
        hydrogens: sampled number of hydrogens on each atom.
        edges: bonded pairs with their lengths (Å), from `connect`.
        hydrogen_penalty: cost of adding or removing one hydrogen; infinite (the default) forbids it.

    Returns:
        The best assignment, or None if none meets every valence, or none was found among `MOST_NODES`.
    """
    search = _BondOrderSearch(elements, hydrogens, edges, hydrogen_penalty)
    return search.solve()


class _BondOrderSearch:
    """Depth-first branch and bound over the edges, cheapest order first."""

    def __init__(
        self,
        elements: Sequence[str],
        hydrogens: Sequence[int],
        edges: Sequence[tuple[int, int, float]],
        hydrogen_penalty: float,
    ) -> None:
        self.edges = edges
        self.hydrogens = hydrogens
        self.penalty = hydrogen_penalty
        self.most_hydrogens = [MOST_HYDROGENS[element] for element in elements]
        self.open_edges = [0] * len(elements)
        for first, second, _ in edges:
            self.open_edges[first] += 1
            self.open_edges[second] += 1
        self.room = [valence_of(element, count) for element, count in zip(elements, self.open_edges, strict=True)]
        self.neighbours = _neighbours(len(elements), edges)
        self.costs = [self._costs(elements, *edge) for edge in edges]
        # The search is led by the best surroundings each order could have; what they are is known at its end.
        self.choices = [sorted((min(table[order]), order) for order in table) for table in self.costs]
        self.cheapest_rest = [0.0] * (len(edges) + 1)
        for index in range(len(edges) - 1, -1, -1):
            least = min((cost for cost, _ in self.choices[index]), default=math.inf)
            self.cheapest_rest[index] = self.cheapest_rest[index + 1] + least
        self._forbid_linear_atoms_in_small_rings()
        self.orders = [0] * len(edges)
        self.nodes = 0
        self.best_cost = math.inf
        self.best: tuple[list[int], list[int]] | None = None

    @staticmethod
    def _costs(elements: Sequence[str], first: int, second: int, length: float) -> dict[int, list[float]]:
        """Returns the chi-squared of a bond, by order and surroundings."""
        table = BOND_LENGTHS.get(pair_key(elements[first], elements[second]), {})
        return {
            order: [((length - mean) / spread) ** 2 for mean, spread in surroundings]
            for order, surroundings in table.items()
        }

    def _forbid_linear_atoms_in_small_rings(self) -> None:
        """Removes triple bonds in small rings, and notes edge pairs that may not both be double."""
        neighbours = self.neighbours
        self.cumulated: list[list[int]] = [[] for _ in self.edges]
        for index, (first, second, _) in enumerate(self.edges):
            around = _path_length(neighbours, first, second, avoid_edge=(first, second))
            if around + 1 <= LARGEST_STRAINED_RING:
                self.choices[index] = [choice for choice in self.choices[index] if choice[1] < 3]
            for earlier in range(index):
                shared = {first, second} & set(self.edges[earlier][:2])
                if len(shared) != 1:
                    continue
                start, goal = sorted({first, second} ^ set(self.edges[earlier][:2]))
                between = _path_length(neighbours, start, goal, avoid_atom=shared.pop())
                if between + 2 <= LARGEST_STRAINED_RING:
                    self.cumulated[index].append(earlier)

    def solve(self) -> PerceivedBonds | None:
        if all(room >= open_edges for room, open_edges in zip(self.room, self.open_edges, strict=True)):
            self._descend(0, 0.0)
        if self.best is None:
            return None
        orders, hydrogens = self.best
        repaired = sum(abs(new - old) for new, old in zip(hydrogens, self.hydrogens, strict=True))
        bonds = tuple((edge[0], edge[1], order) for edge, order in zip(self.edges, orders, strict=True))
        chi_squared = self.best_cost - (self.penalty * repaired if repaired else 0.0)
        return PerceivedBonds(bonds, tuple(hydrogens), chi_squared, repaired)

    def _descend(self, index: int, cost: float) -> None:
        self.nodes += 1
        if cost + self.cheapest_rest[index] >= self.best_cost or self.nodes > MOST_NODES:
            return
        if index == len(self.edges):
            self._finish(cost)
            return
        first, second, _ = self.edges[index]
        self.open_edges[first] -= 1
        self.open_edges[second] -= 1
        for choice_cost, order in self.choices[index]:
            if order == 2 and any(self.orders[other] == 2 for other in self.cumulated[index]):
                continue
            self.room[first] -= order
            self.room[second] -= order
            closing = self._closing_cost(first) + self._closing_cost(second)
            if closing < math.inf:
                self.orders[index] = order
                self._descend(index + 1, cost + choice_cost + closing)
                self.orders[index] = 0
            self.room[first] += order
            self.room[second] += order
        self.open_edges[first] += 1
        self.open_edges[second] += 1

    def _finish(self, least_cost: float) -> None:
        """Weighs a complete assignment in its true surroundings, and keeps it if none was better."""
        multiple = [0] * len(self.room)
        for (first, second, _), order in zip(self.edges, self.orders, strict=True):
            multiple[first] += order > 1
            multiple[second] += order > 1
        cost = least_cost
        for (first, second, _), order, costs in zip(self.edges, self.orders, self.costs, strict=True):
            if order == 1:
                surroundings = (multiple[first] > 0) + (multiple[second] > 0)
            else:
                surroundings = self._conjugated(first, second, multiple) + self._conjugated(second, first, multiple)
            cost += costs[order][surroundings] - min(costs[order])
        if cost < self.best_cost:
            self.best_cost, self.best = cost, (self.orders.copy(), self.room.copy())

    def _conjugated(self, atom: int, partner: int, multiple: list[int]) -> bool:
        """Whether another neighbour of the atom than its partner has a multiple bond."""
        return any(multiple[other] for other in self.neighbours[atom] if other != partner)

    def _closing_cost(self, atom: int) -> float:
        """Cost of the hydrogens an atom ends with once its last bond is set; infinite if impossible."""
        room = self.room[atom]
        if self.open_edges[atom]:
            return 0.0 if room >= self.open_edges[atom] else math.inf
        if not 0 <= room <= self.most_hydrogens[atom]:
            return math.inf
        change = abs(room - self.hydrogens[atom])
        return self.penalty * change if change else 0.0


def _neighbours(atoms: int, edges: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    neighbours: list[list[int]] = [[] for _ in range(atoms)]
    for first, second, _ in edges:
        neighbours[first].append(second)
        neighbours[second].append(first)
    return neighbours


def _path_length(
    neighbours: list[list[int]],
    start: int,
    goal: int,
    avoid_edge: tuple[int, int] | None = None,
    avoid_atom: int | None = None,
) -> int:
    """Bonds on the shortest path from start to goal that avoids an edge or an atom; a large number if none."""
    seen = {start} if avoid_atom is None else {start, avoid_atom}
    frontier, length = [start], 0
    while frontier:
        length += 1
        reached = []
        for atom in frontier:
            for neighbour in neighbours[atom]:
                if avoid_edge is not None and {atom, neighbour} == set(avoid_edge):
                    continue
                if neighbour == goal:
                    return length
                if neighbour not in seen:
                    seen.add(neighbour)
                    reached.append(neighbour)
        frontier = reached
    return 10_000
