"""Reference molecules, and how near another one comes to them, in its graph or in its shape.

Morgan fingerprints: D. Rogers, M. Hahn, J. Chem. Inf. Model. 50, 742 (2010). Alignment by Open3DALIGN on Crippen's
atom contributions: P. Tosco, T. Balle, F. Shiri, J. Comput.-Aided Mol. Des. 25, 777 (2011). May import
pilotwave.errors; RDKit inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pilotwave.errors import InputError

RADIUS = 2
BITS = 2048

EMBEDDING_SEED = 20
EMBEDDING_ATTEMPTS = 50
"""A reference that has no coordinates gets those of one conformer, the same every time."""


def read_references(smiles: Sequence[str], file: Path | None) -> list[Any]:
    """Returns the RDKit molecules of SMILES and of a file, with coordinates where the file has them.

    Raises:
        InputError: One cannot be read; the message says which.
    """
    from rdkit import rdBase

    with rdBase.BlockLogs():
        found = [_from_smiles(text, f"references[{place}]") for place, text in enumerate(smiles)]
        if file is not None:
            found += _from_sdf(file) if file.suffix.lower() in {".sdf", ".mol"} else _from_text(file)
    if not found:
        raise InputError(f"expected at least one reference molecule, found none in {file}")
    return found


def _from_smiles(text: str, place: str) -> Any:
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(text)
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise InputError(f"{place}: expected a SMILES, got {text!r}")
    return molecule


def _from_text(file: Path) -> list[Any]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected a text file with a SMILES a line: {error}") from error
    rows = [(number, line.split()[0]) for number, line in enumerate(lines, start=1) if line.strip()]
    return [_from_smiles(text, f"{file}, line {number}") for number, text in rows]


def _from_sdf(file: Path) -> list[Any]:
    from rdkit import Chem

    found = []
    for number, molecule in enumerate(Chem.SDMolSupplier(str(file), removeHs=False), start=1):
        if molecule is None or molecule.GetNumAtoms() == 0:
            raise InputError(f"{file}: expected molecules that RDKit can read, number {number} is none")
        found.append(molecule)
    return found


def similarity_to(references: Sequence[Any]) -> Callable[[Any], float]:
    """Returns the function from a molecule to its largest Tanimoto similarity, 0 to 1, to any reference."""
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    known = [generator.GetFingerprint(Chem.RemoveHs(reference)) for reference in references]

    def similarity(molecule: Any) -> float:
        fingerprint = generator.GetFingerprint(Chem.RemoveHs(molecule))
        return float(max(DataStructs.BulkTanimotoSimilarity(fingerprint, known)))

    return similarity


def shape_similarity_to(references: Sequence[Any]) -> Callable[[Any], float]:
    """Returns the function from a molecule in 3D to its largest shape Tanimoto, 0 to 1, over all references.

    Each is laid onto each reference first; hydrogens take part in neither.

    Raises:
        InputError: A reference has no coordinates and none can be found.
    """
    from rdkit import Chem
    from rdkit.Chem import rdMolAlign, rdMolDescriptors, rdShapeHelpers

    shapes = [Chem.RemoveHs(_in_space(reference)) for reference in references]
    crippen = [rdMolDescriptors._CalcCrippenContribs(shape) for shape in shapes]

    def similarity(molecule: Any) -> float:
        laid = Chem.RemoveHs(molecule)
        contributions = rdMolDescriptors._CalcCrippenContribs(laid)
        best = 0.0
        for shape, known in zip(shapes, crippen, strict=True):
            rdMolAlign.GetCrippenO3A(laid, shape, contributions, known).Align()
            best = max(best, 1.0 - float(rdShapeHelpers.ShapeTanimotoDist(laid, shape)))
        return best

    return similarity


def _in_space(molecule: Any) -> Any:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    if molecule.GetNumConformers() and molecule.GetConformer().Is3D():
        return molecule
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = EMBEDDING_SEED
    parameters.maxIterations = EMBEDDING_ATTEMPTS
    parameters.numThreads = 1
    embedded = Chem.AddHs(molecule)
    if rdDistGeom.EmbedMolecule(embedded, parameters) != 0:
        raise InputError(
            f"no 3D shape found for the reference {Chem.MolToSmiles(molecule)}; give its coordinates in an SDF file"
        )
    return embedded


__all__ = ["BITS", "RADIUS", "read_references", "shape_similarity_to", "similarity_to"]
