"""How varied molecules are: distinct ones, and how far apart by structure.

May import: numpy; RDKit inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RADIUS, BITS = 2, 2048
FEWEST_TO_TELL = 16


def diversity(smiles: Sequence[str]) -> dict[str, float] | None:
    """Returns two measures of variety, larger for more of it; None if there are fewer than 16 molecules.

    Args:
        smiles: Canonical, one per molecule; all readable.

    Returns:
        ``distinct``: different molecules over molecules. ``tanimoto_distance``: mean over all pairs of one minus
        the Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits); a pair of the same molecule counts 0.
    """
    if len(smiles) < FEWEST_TO_TELL:
        return None
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in smiles]
    similarities = [
        DataStructs.BulkTanimotoSimilarity(prints[row], prints[row + 1 :]) for row in range(len(prints) - 1)
    ]
    return {
        "distinct": len(set(smiles)) / len(smiles),
        "tanimoto_distance": 1.0 - float(np.mean(np.concatenate(similarities))),
    }


__all__ = ["FEWEST_TO_TELL", "diversity"]
