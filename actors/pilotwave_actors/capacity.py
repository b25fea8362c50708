"""Does the cluster have what a campaign's actors will occupy? Said at once, instead of waiting for ever.

May import the core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pilotwave.errors import InputError

Resources = Mapping[str, float]
_SLACK = 1e-6
_GRAINS = 10_000
"""Ray counts shares of a GPU in ten-thousandths."""


@dataclass(frozen=True)
class Demand:
    """Actors of one kind.

    Attributes:
        what: Their name in messages.
        key: The setting that says what each occupies.
        count: How many run side by side.
        each: What each occupies.
        number: The setting that says how many there are.
        most: How many there may be when the pool has grown; as many as run anyway if 0.
    """

    what: str
    key: str
    count: int
    each: Resources
    number: str = "runtime.evaluators"
    most: int = 0


def check_capacity(demands: Sequence[Demand], nodes: Mapping[str, Resources], *, grows: bool) -> str:
    """Makes sure that the actors fit into the cluster when nothing else runs there.

    Args:
        demands: What is needed, the most important first.
        nodes: What each living node has in all, by its name.
        grows: Whether an autoscaler may add nodes; then what is missing is only said.

    Returns:
        What is missing, one line, or nothing. A pool that cannot grow to its largest size is told of here.

    Raises:
        InputError: Something is missing, and no node will bring it.
    """
    missing = _missing(demands, nodes)
    if missing and not grows:
        raise InputError(f"{missing}; there is: {describe_nodes(nodes)}")
    if missing:
        return f"{missing}; waiting for the autoscaler to add nodes"
    return "" if grows else _cannot_grow(demands, nodes)


def share_of_gpus(generators: int, gpus: float, taken: float) -> float:
    """Returns what each generator gets of the cluster's GPUs.

    One each if there are enough; otherwise an equal share of one, with as few on a GPU as can be: three generators
    on two GPUs get a half each, not two thirds, which no two of them would find on one GPU.

    Args:
        generators: How many there are.
        gpus: How many the cluster has.
        taken: What the evaluators occupy of them; what is left is shared, or all if nothing is left.
    """
    whole = math.floor(gpus - taken + _SLACK) or (gpus - taken if gpus > taken else math.floor(gpus))
    if whole <= 0:
        return 0.0
    if whole < 1:
        return math.floor(_GRAINS * whole / generators) / _GRAINS
    return math.floor(_GRAINS / math.ceil(generators / whole)) / _GRAINS


def describe_nodes(nodes: Mapping[str, Resources]) -> str:
    """Returns what each node has, one line."""
    return "; ".join(f"node {name}: {_amounts(has) or 'nothing'}" for name, has in nodes.items()) or "no node"


def _missing(demands: Sequence[Demand], nodes: Mapping[str, Resources]) -> str:
    for demand in demands:
        if not any(_fits(demand.each, has) for has in nodes.values()):
            return f"no node of the cluster has what {demand.what} needs ({_amounts(demand.each)}, {demand.key})"
    left = [dict(has) for has in nodes.values()]
    for demand in demands:
        placed = _place(demand, left)
        if placed < demand.count:
            return (
                f"the cluster has room for {placed} of {demand.count} actors that need {_amounts(demand.each)} "
                f"each ({demand.what}); lower {demand.number} or {demand.key}"
            )
    return ""


def _cannot_grow(demands: Sequence[Demand], nodes: Mapping[str, Resources]) -> str:
    left = [dict(has) for has in nodes.values()]
    placed = [_place(demand, left) for demand in demands]
    for demand, fewest in zip(demands, placed, strict=True):
        if demand.most > demand.count:
            grown = fewest + _place(replace(demand, count=demand.most - fewest), left)
            if grown < demand.most:
                return (
                    f"the cluster has room for {grown} of at most {demand.most} actors that need "
                    f"{_amounts(demand.each)} each ({demand.what}); the pool grows no further"
                )
    return ""


def _place(demand: Demand, left: list[dict[str, float]]) -> int:
    """Takes the room of as many as fit, node after node; returns how many."""
    placed = 0
    for has in left:
        while placed < demand.count and _fits(demand.each, has):
            placed += 1
            for name, amount in demand.each.items():
                has[name] = has.get(name, 0.0) - amount
    return placed


def _fits(each: Resources, has: Resources) -> bool:
    return all(has.get(name, 0.0) + _SLACK >= amount for name, amount in each.items() if amount > 0)


def _amounts(resources: Resources) -> str:
    """Leaves out what every node has of its own: memory in bytes and names of nodes."""
    shown = {
        name: amount
        for name, amount in resources.items()
        if amount > 0 and not name.startswith("node:") and name not in ("memory", "object_store_memory")
    }
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(shown.items()))


__all__ = ["Demand", "check_capacity", "describe_nodes", "share_of_gpus"]
