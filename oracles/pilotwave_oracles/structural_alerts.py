"""Functional groups that no chemist would put into a bottle, by name, as SMARTS.

A short list of what an optimiser finds when only a number is asked of it: chains of heteroatoms, groups that
lose water or rearrange on sight. It is no toxicology filter. May import RDKit inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

ALERTS: dict[str, str] = {
    "peroxide": "[OX2]-[OX2]",
    "three heteroatoms in a row": "[N,O;+0]~[N,O;+0]~[N,O;+0]",
    "halogen on a heteroatom": "[F,Cl,Br,I]-[#7,#8,#16X2]",
    "geminal diol": "[CX4]([OX2H1])[OX2H1]",
    "geminal amino alcohol": "[CX4]([OX2H1])[NX3;!$(N-[C,S]=[O,S,N])]",
    "open-chain hemiacetal": "[CX4]([OX2H1])!@[OX2H0;!R]",
    "geminal diamine": "[CX4]([NX3;H1,H2])[NX3;H2]",
    "hydroxyl on a triple bond": "[OX2H1][CX2]#*",
    "amine on an alkyne": "[NX3;H1,H2][CX2]#[CX2]",
    "ketene or ketenimine": "[#6X3]=[CX2]=[O,S,N]",
    "oxirene or 1H-azirine": "[O,S,NX3]1[#6]=[#6]1",
    "cyclobutadiene": "[*;!a]1=[*;!a]-[*;!a]=[*;!a]-1",
    "three conjugated triple bonds": "*#**#**#*",
    "N-hydroxy on a double bond to nitrogen": "[OX2H1]-[NX3]-[CX3]=[NX2H1]",
    "carbonic or carbamic acid": "[OX2H1][CX3](=O)[OX2,NX3]",
}
"""From the name of an alert, which is also the reason a sample is refused, to its pattern."""


def compile_alerts(names: Iterable[str]) -> list[tuple[str, Any]]:
    """Returns each alert's name with its RDKit query."""
    from rdkit import Chem

    return [(name, Chem.MolFromSmarts(ALERTS[name])) for name in names]


def first_alert(molecule: Any, alerts: Iterable[tuple[str, Any]]) -> str | None:
    """Returns the name of the first alert that the molecule raises, or None."""
    return next((name for name, pattern in alerts if molecule.HasSubstructMatch(pattern)), None)


__all__ = ["ALERTS", "compile_alerts", "first_alert"]
