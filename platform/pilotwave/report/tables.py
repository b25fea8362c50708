"""Tables for a terminal: the best samples, and why the others have no value.

May import rich and :mod:`pilotwave.report`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from pilotwave.report.ranking import FailureCount, Ranked

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_LABEL_TITLES = {"molecule": "SMILES"}
_SEEN_IN_THE_LABEL = {"heavy_atoms", "largest_ring"}
_SHORT_TITLES = {"ring_strain": "ring\nstrain", "synthetic_accessibility": "SA\nscore"}


def best_table(
    ranked: Sequence[Ranked], *, oracle: str = "value", unit: str = "", title: str | None = None
) -> Table:
    """Returns the table of the best: label, value with unit, validity, constraint properties, query id.

    Args:
        ranked: Best first.
        oracle: Its name, e.g. ``"xtb:polarizability"``; the part after the colon heads the values.
        unit: The oracle's.
        title: Above the table.
    """
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    heading = oracle.rpartition(":")[2].replace("_", " ")
    heading = f"{heading}\n({pretty_unit(unit)})" if unit else heading
    table.add_column("#", justify="right")
    table.add_column(_label_title(ranked), overflow="fold", style="cyan", min_width=12)
    table.add_column(heading, justify="right", style="bold", min_width=max(map(len, heading.splitlines())))
    with_validity = any(item.strictly_valid is not None for item in ranked)
    if with_validity:
        table.add_column("validity")
    names = constraint_names(ranked)
    for name in names:
        table.add_column(_SHORT_TITLES.get(name, name.replace("_", " ")), justify="right")
    table.add_column("query", no_wrap=True)
    values = [item.value for item in ranked]
    for item in ranked:
        cells = [str(item.rank), escape(item.label), format_value(item.value, values)]
        cells += [item.validity] if with_validity else []
        cells += [_number(item.constraints.get(name)) for name in names]
        table.add_row(*cells, _query(item))
    return table


def failure_table(failures: Sequence[FailureCount]) -> Table:
    """Returns the table of why queries and candidates have no value."""
    table = Table(
        title="Without a value", title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for heading in ("status", "stage", "for example"):
        table.add_column(heading, overflow="fold")
    table.add_column("count", justify="right")
    for failure in failures:
        table.add_row(failure.status, escape(failure.stage), escape(failure.message), str(failure.count))
    return table


def constraint_names(ranked: Sequence[Ranked], limit: int = 4) -> list[str]:
    """Returns the names of what constraints measured, in order of first appearance, a few at most.

    What the label shows already (the size of a molecule and of its rings) is left out.
    """
    measured = dict.fromkeys(name for item in ranked for name in item.constraints)
    return [name for name in measured if name not in _SEEN_IN_THE_LABEL][:limit]


def pretty_unit(unit: str) -> str:
    """Returns the unit with raised exponents: ``"bohr^3"`` becomes ``"bohr³"``."""
    head, *powers = unit.split("^")
    for power in powers:
        size = len(power) - len(power.lstrip("-0123456789"))
        head += power[:size].translate(_SUPERSCRIPTS) + power[size:]
    return head


def format_value(value: float, among: Sequence[float] = ()) -> str:
    """Returns a value with at least five significant digits, without an exponent where people want none.

    Args:
        value: To be written.
        among: The values of the same column; all of them get as many decimals as the largest needs.
    """
    largest = max(abs(item) for item in (value, *among))
    if largest == 0 or 1e-3 <= largest < 1e6:
        whole = len(str(int(largest))) if largest >= 1 else 0
        return f"{value:.{max(0, 5 - whole)}f}"
    return f"{value:.6e}"


def _label_title(ranked: Sequence[Ranked]) -> str:
    return _LABEL_TITLES.get(ranked[0].sample.media, "sample") if ranked else "sample"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _query(item: Ranked) -> str:
    return item.query_id if item.reused_from is None else f"{item.query_id} (= {item.reused_from})"


__all__ = ["best_table", "constraint_names", "failure_table", "format_value", "pretty_unit"]
