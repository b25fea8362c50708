"""Small recorded runs, made through the ledger's own interface, for tests of what people see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave.types import Candidate, Evaluation, Failure, Status, Timings

SMILES = [
    "C#CC#CC1=CC=CN1",
    "O=c1cc[nH]c(=O)[nH]1",
    "CC(C)C1CCOC1",
    "N#CC1=CNC=C1",
    "CCO",
    "C1CC1CN",
    "CC(=O)Nc1ccco1",
    "OC1CC2CC12",
    "CCO",
    "c1ccccc1",
]


def molecule(smiles: str) -> MoleculeSample:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0
    repaired = 2 * (len(smiles) % 3 == 0)
    canonical = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    return MoleculeSample(Chem.MolToMolBlock(mol), canonical, repaired == 0, repaired)


def image(index: int) -> ImageSample:
    pixels = np.random.default_rng(index).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    return ImageSample(pixels, "sneaker")


def array(index: int) -> ArraySample:
    return ArraySample(np.random.default_rng(index).normal(size=4).astype(np.float32))


def record_run(
    run_dir: Path,
    samples: Sequence[Sample],
    *,
    batch_size: int = 5,
    direction: str = "maximize",
    unit: str = "bohr^3",
) -> Path:
    """Writes a run: query i of the samples has the value 40 + 3i + noise, except every seventh, which fails."""
    run_dir.mkdir(parents=True)
    (run_dir / "campaign.yaml").write_text(f"name: polarizable\nobjective: {{direction: {direction}}}\n")
    generator = np.random.default_rng(0)
    with Ledger.create(run_dir / "ledger.sqlite", {"campaign": "x", "name": "polarizable"}) as ledger:
        facts = {"backbone": "b", "oracle": "xtb:polarizability", "oracle_version": "tblite-0.4", "unit": unit}
        record = {"host": "h", "pid": 1, "resumed": False, "queries": len(samples), "facts": facts}
        ledger.append(EventKind.STARTED, record)
        for number, start in enumerate(range(0, len(samples), batch_size)):
            batch = samples[start : start + batch_size]
            ledger.append(EventKind.ASKED, {"proposal": number, "count": len(batch)})
            made = [_candidate(f"p{number:04d}-{slot:02d}", number, sample) for slot, sample in enumerate(batch)]
            vetoed = _candidate(f"p{number:04d}-00.1", number, None)
            record = {
                "proposal": number,
                "query_ids": [item.query_id for item in [*made, vetoed]],
                "feasible": [item.query_id for item in made],
                "passes": 1,
                "seconds": 0.5,
            }
            ledger.add_candidates([*made, vetoed], record)
            for slot, candidate in enumerate(made):
                ledger.append(EventKind.RESERVED, {"query_id": candidate.query_id, "attempt": 1})
                value = 40 + 3.0 * (start + slot) + generator.normal(0, 4)
                ledger.settle(EventKind.SETTLED, _evaluation(candidate.query_id, start + slot, value))
            ledger.append(EventKind.TOLD, {"query_ids": [item.query_id for item in made]})
    return run_dir


def _candidate(query_id: str, proposal: int, sample: Sample | None) -> Candidate:
    return Candidate(
        query_id=query_id,
        seed=3,
        proposal=proposal,
        noise_sequence=torch.zeros(3, 2),
        latent=torch.zeros(2),
        condition=torch.zeros(0, dtype=torch.int64),
        sample=sample,
        infeasible="structure: cumulene in a ring" if sample is None else None,
        properties={} if sample is None else {"synthetic_accessibility": 3.21, "strain": 0.4},
    )


def _evaluation(query_id: str, index: int, value: float) -> Evaluation:
    timings = Timings(1_700_000_000.0 + index, 1_700_000_000.5 + index)
    if index % 7 == 6:
        failure = Failure("scf", "not converged after 250 iterations")
        return Evaluation(query_id, Status.FAILED, attempt=2, cost=1.0, timings=timings, failure=failure)
    properties = {"energy_hartree": -20.0 - index}
    return Evaluation(
        query_id, Status.OK, value, cost=1.0, fidelity="gfn2", timings=timings, properties=properties, worker="e-1"
    )


@pytest.fixture(scope="session")
def molecules() -> list[MoleculeSample]:
    return [molecule(smiles) for smiles in SMILES]


@pytest.fixture
def molecule_run(tmp_path: Path, molecules: list[MoleculeSample]) -> Path:
    """Ten molecules in two batches; queries 4 and 8 are the same molecule, query 6 failed."""
    return record_run(tmp_path / "runs" / "demo", molecules)


@pytest.fixture
def image_run(tmp_path: Path) -> Path:
    return record_run(tmp_path / "runs" / "images", [image(i) for i in range(6)], direction="minimize", unit="kB")


@pytest.fixture
def array_run(tmp_path: Path) -> Path:
    return record_run(tmp_path / "runs" / "arrays", [array(i) for i in range(6)], unit="")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Records a run of given samples; see :func:`record_run`."""
    return lambda samples, **options: record_run(tmp_path / "runs" / "made", samples, **options)
