"""Real molecules for the oracles' tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pilotwave.samples import MoleculeSample

DATA = Path(__file__).with_name("data")


@dataclass(frozen=True)
class ReferenceMolecule:
    """A molecule of QM9 with its published polarizability."""

    sample: MoleculeSample
    polarizability: float


@pytest.fixture(scope="session")
def qm9_molecules() -> list[ReferenceMolecule]:
    """27 molecules of QM9: methane, water, benzene and 24 drawn at random, with B3LYP/6-31G(2df,p) geometries.

    R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Scientific Data 1, 140022 (2014), as distributed
    by the package qm9pack 1.0.3; bonds were perceived by RDKit and agree with the published SMILES.
    """
    molecules = []
    for record in (DATA / "qm9_sample.sdf").read_text().split("$$$$\n")[:-1]:
        block, _, fields = record.partition("M  END\n")
        values = dict(zip(fields.split()[1::3], fields.split()[2::3], strict=True))
        sample = MoleculeSample(f"{block}M  END\n", values["<SMILES>"])
        molecules.append(ReferenceMolecule(sample, float(values["<B3LYP_POLARIZABILITY_BOHR3>"])))
    assert len(molecules) == 27
    return molecules
