"""Scaffolds and groups that a molecule must or must not contain (kind ``substructure``).

May import pilotwave and pilotwave_oracles; RDKit only when the constraint is built.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pilotwave.config.components import ConstraintConfig
from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import Constraint, Verdict
from pilotwave.samples import MoleculeSample, Sample
from pilotwave_oracles.geometry import parse_mol_block


class SubstructureConstraintConfig(ConstraintConfig):
    """Refuses molecules without a wished substructure or with an unwished one, or on a known scaffold."""

    media: ClassVar[frozenset[str]] = frozenset({"molecule"})
    packages: ClassVar[tuple[str, ...]] = ("rdkit",)
    extra: ClassVar[str | None] = "molecules"
    summary: ClassVar[str] = "Scaffold filter: SMARTS that must or must not occur, known scaffolds refused."

    kind: Literal["substructure"] = "substructure"
    require: tuple[str, ...] = Field((), description="SMARTS of which every one must occur.")
    require_any: tuple[str, ...] = Field((), description="SMARTS of which at least one must occur.")
    forbid: tuple[str, ...] = Field((), description="SMARTS of which none may occur.")
    known_scaffolds: tuple[str, ...] = Field(
        (), description="SMILES; molecules with the Bemis-Murcko scaffold of one of these are refused."
    )

    @model_validator(mode="after")
    def _asks_something(self) -> SubstructureConstraintConfig:
        if not (self.require or self.require_any or self.forbid or self.known_scaffolds):
            raise ValueError("expected require, require_any, forbid or known_scaffolds, got none of them")
        return self

    def build(self) -> Constraint:
        """Compiles the patterns.

        Raises:
            MissingDependencyError: RDKit is not installed.
            InputError: A pattern is no SMARTS, or a scaffold no SMILES.
        """
        self.check_dependencies()
        return SubstructureConstraint(self)


class SubstructureConstraint:
    """See :class:`SubstructureConstraintConfig`; hydrogens are implicit, as in most SMARTS."""

    name = "substructure"
    media = frozenset({"molecule"})

    def __init__(self, config: SubstructureConstraintConfig) -> None:
        self._require = _compiled(config.require, "require")
        self._require_any = _compiled(config.require_any, "require_any")
        self._forbid = _compiled(config.forbid, "forbid")
        self._scaffolds = {scaffold_of(text) for text in config.known_scaffolds}

    def check(self, sample: Sample) -> Verdict:
        """Judges one sample; measures nothing."""
        if not isinstance(sample, MoleculeSample):
            return Verdict(f"not a molecule: {sample.media}", {})
        try:
            return Verdict(self._reason(parse_mol_block(sample.mol_block)), {})
        except OracleFailure as error:
            return Verdict(f"unreadable: {error}", {})

    def _reason(self, molecule: Any) -> str | None:
        from rdkit import Chem

        heavy = Chem.RemoveHs(molecule)
        for text, pattern in self._forbid.items():
            if heavy.HasSubstructMatch(pattern):
                return f"unwished substructure: {text}"
        for text, pattern in self._require.items():
            if not heavy.HasSubstructMatch(pattern):
                return f"substructure missing: {text}"
        if self._require_any and not any(map(heavy.HasSubstructMatch, self._require_any.values())):
            return f"substructure missing: any of {', '.join(self._require_any)}"
        if self._scaffolds and (scaffold := _scaffold(heavy)) in self._scaffolds:
            return f"known scaffold: {scaffold}"
        return None


def _compiled(patterns: tuple[str, ...], field: str) -> dict[str, Any]:
    from rdkit import Chem, rdBase

    compiled = {}
    for text in patterns:
        with rdBase.BlockLogs():
            compiled[text] = Chem.MolFromSmarts(text) if text.strip() else None
        if compiled[text] is None:
            raise InputError(f"constraint substructure, {field}: expected a SMARTS pattern, got {text!r}")
    return compiled


def scaffold_of(smiles: str) -> str:
    """Returns the Bemis-Murcko scaffold of a SMILES as a canonical SMILES without stereochemistry.

    G. W. Bemis, M. A. Murcko, J. Med. Chem. 39, 2887 (1996).

    Raises:
        InputError: It is no SMILES, or a molecule without rings.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    scaffold = "" if molecule is None else _scaffold(molecule)
    if not scaffold:
        raise InputError(
            "constraint substructure, known_scaffolds: expected the SMILES of a molecule with rings, "
            f"got {smiles!r}"
        )
    return scaffold


def _scaffold(molecule: Any) -> str:
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    murcko: Any = MurckoScaffold
    return str(Chem.MolToSmiles(murcko.GetScaffoldForMol(molecule), isomericSmiles=False))


__all__ = ["SubstructureConstraint", "SubstructureConstraintConfig", "scaffold_of"]
