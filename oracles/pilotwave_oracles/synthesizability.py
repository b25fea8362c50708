"""A limit on the synthetic accessibility score (kind ``synthesizability``).

P. Ertl and A. Schuffenhauer, "Estimation of synthetic accessibility score of drug-like molecules based on
molecular complexity and fragment contributions", J. Cheminformatics 1, 8 (2009); computed by the authors' own
program, which RDKit distributes in its Contrib folder. May import pilotwave and pilotwave_oracles; RDKit when
the constraint is built.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

from pydantic import Field

from pilotwave.config.components import ConstraintConfig
from pilotwave.errors import MissingDependencyError, OracleFailure
from pilotwave.protocols import Constraint, Verdict
from pilotwave.samples import MoleculeSample, Sample
from pilotwave_oracles.geometry import parse_mol_block


class SynthesizabilityConstraintConfig(ConstraintConfig):
    """Refuses molecules whose synthetic accessibility score is above a limit."""

    media: ClassVar[frozenset[str]] = frozenset({"molecule"})
    packages: ClassVar[tuple[str, ...]] = ("rdkit",)
    extra: ClassVar[str | None] = "molecules"
    summary: ClassVar[str] = "A limit on the synthetic accessibility score, 1 (easy) to 10 (hard)."

    kind: Literal["synthesizability"] = "synthesizability"
    maximum: float = Field(
        5.5,
        ge=1,
        le=10,
        description="Highest score allowed, 1 (easy) to 10 (hard). Small unusual molecules score high: in QM9 "
        "the median is 4.2, and 91% lie below 5.5.",
    )

    def build(self) -> Constraint:
        """Loads the score's program and its table of fragments (half a second).

        Raises:
            MissingDependencyError: RDKit is not installed, or without its Contrib folder.
        """
        self.check_dependencies()
        return SynthesizabilityConstraint(self)


class SynthesizabilityConstraint:
    """See :class:`SynthesizabilityConstraintConfig`; measures ``synthetic_accessibility``, 1 (easy) to 10."""

    name = "synthesizability"
    media = frozenset({"molecule"})

    def __init__(self, config: SynthesizabilityConstraintConfig) -> None:
        self._maximum = config.maximum
        self._scorer = load_scorer()

    def check(self, sample: Sample) -> Verdict:
        """Scores one sample; what cannot be read or scored is refused with the reason."""
        if not isinstance(sample, MoleculeSample):
            return Verdict(f"not a molecule: {sample.media}", {})
        try:
            score = self.score(parse_mol_block(sample.mol_block))
        except OracleFailure as error:
            return Verdict(f"unreadable: {error}", {})
        reason = f"hard to make: score {score:.1f}, limit {self._maximum:g}" if score > self._maximum else None
        return Verdict(reason, {"synthetic_accessibility": score})

    def score(self, molecule: Any) -> float:
        """Returns the score of a sanitised RDKit molecule; explicit hydrogens do not count."""
        from rdkit import Chem

        return float(self._scorer.calculateScore(Chem.RemoveHs(molecule)))


def load_scorer() -> ModuleType:
    """Loads ``sascorer`` from the Contrib folder of the installed RDKit, without touching ``sys.path``.

    Raises:
        MissingDependencyError: It is not there; the message says where it was sought.
    """
    from rdkit import RDConfig

    return _load_scorer(Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py")


@functools.cache  # its table of fragments is 4 MB packed, and the same for every limit
def _load_scorer(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pilotwave_sascorer", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise MissingDependencyError(
            f"kind 'synthesizability' needs RDKit's Contrib folder, and {path} is not there; "
            "run: pip install --force-reinstall rdkit"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.readFragmentScores()
    return module


__all__ = ["SynthesizabilityConstraint", "SynthesizabilityConstraintConfig", "load_scorer"]
