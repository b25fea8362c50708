"""What makes two questions to an oracle the same one: the oracle in all its parameters, and the candidate.

A molecule's canonical form is its canonical SMILES and its geometry, however it is turned, shifted or numbered;
that of an image is its pixels, that of an array its numbers. May import numpy, :mod:`pilotwave.samples` and
:mod:`pilotwave.archive.project.geometry`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pilotwave.archive.project.geometry import geometry_fingerprint, parse_mol_block
from pilotwave.samples import MoleculeSample, Sample

_COMPACT = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class EvaluationKey:
    """One question to one oracle.

    Attributes:
        oracle: The oracle's name, e.g. ``"xtb:polarizability"``.
        oracle_version: Of the oracle, as it says itself.
        oracle_parameters: A digest of all its other parameters, see
            :func:`pilotwave.archive.project.from_run.parameters_digest`.
        fidelity: The level at which it was answered, e.g. ``"gfn2"``; None in a look-up means any.
        canonical: What was asked about, see :func:`canonical_form`.
    """

    oracle: str
    oracle_version: str
    oracle_parameters: str
    fidelity: str | None
    canonical: str

    @classmethod
    def of(
        cls,
        sample: Sample,
        *,
        oracle: str,
        oracle_version: str,
        oracle_parameters: str,
        fidelity: str | None = None,
        geometry: bool = True,
    ) -> EvaluationKey:
        """Returns the question about this sample; ``geometry`` as in :func:`canonical_form`."""
        return cls(oracle, oracle_version, oracle_parameters, fidelity, canonical_form(sample, geometry=geometry))

    def digest(self) -> int:
        """Returns 63 bits of the question without its fidelity, by which an archive finds the answers."""
        words = [self.oracle, self.oracle_version, self.oracle_parameters, self.canonical]
        return short_digest(_COMPACT(words))


def canonical_form(sample: Sample, *, geometry: bool = True) -> str:
    """Returns a text that is equal for samples which are the same thing to an oracle.

    Args:
        sample: Of any media.
        geometry: For a molecule, whether its geometry counts (an oracle that reads only the SMILES can do
            without). Distances are rounded to 0.01 Å, so two geometries that differ by less mostly agree, and
            now and then (a distance at the edge of rounding) do not: then a question is asked once more.

    Returns:
        For a molecule ``"SMILES|geometry:hex"``; with coordinates that cannot be read, its mol block's hash
        stands in for them. Otherwise the sample's identity.
    """
    if not isinstance(sample, MoleculeSample) or not geometry:
        return sample.identity()
    atoms = parse_mol_block(sample.mol_block)
    if atoms is None:
        return f"{sample.smiles}|block:{hashlib.sha256(sample.mol_block.encode()).hexdigest()[:32]}"
    return f"{sample.smiles}|geometry:{geometry_fingerprint(*atoms)}"


def short_digest(text: str) -> int:
    """Returns 63 bits of the text's BLAKE2b: a number from 0 that fits a signed integer, too."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


__all__ = ["EvaluationKey", "canonical_form", "short_digest"]
