"""What a molecule model is trained on, by the name a training run gives it.

May import: the data sets beside it and the run's configuration.
"""

from __future__ import annotations

from collections.abc import Callable

from pilotwave.backbones.molecule import moses, qm9
from pilotwave.backbones.molecule.dataset import MoleculeDataset
from pilotwave.backbones.molecule.training_config import MoleculeTrainingConfig
from pilotwave.errors import InputError


def load(config: MoleculeTrainingConfig, announce: Callable[[str], None] | None = None) -> MoleculeDataset:
    """Loads the data of a run, preparing it on first use.

    Args:
        config: Names the data and the cache.
        announce: Called with a line of text while data is prepared.

    Raises:
        InputError: The data does not fit the network, or cannot be read.
        MissingDependencyError: The package that holds the data is neither installed nor to be fetched.
    """
    if config.data == "qm9":
        return qm9.load(config.cache, config.processes)
    if config.data == "moses":

        def tell(done: int, total: int) -> None:
            if announce is not None:
                announce(f"made geometries of {done:,} of {total:,} drug-like molecules")

        return moses.load(config.cache, processes=config.processes, progress=tell)
    raise InputError(f"expected data qm9 or moses, got {config.data!r}")


__all__ = ["load"]
