"""What a molecule model is trained on, by the name a training run gives it.

May import: the data sets beside it, the run's configuration and :mod:`pilotwave.training`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pilotwave.backbones.molecule import fine_tuning, moses, qm9, sdf
from pilotwave.backbones.molecule.dataset import MoleculeDataset
from pilotwave.backbones.molecule.fine_tuning import TrainingSet
from pilotwave.backbones.molecule.training_config import MoleculeTrainingConfig, identity
from pilotwave.training.card import DataSource
from pilotwave.training.progress import TrainingWatcher

NARROWNESS_SAMPLE = 500

SOURCES = {
    "qm9": DataSource(
        "QM9",
        0,
        0,
        "R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Quantum chemistry structures and properties "
        "of 134 kilo molecules, Scientific Data 1, 140022 (2014), doi 10.1038/sdata.2014.22; B3LYP/6-31G(2df,p) "
        "geometries, from the Python package qm9pack 1.0.3",
        "CC0 1.0 as public records of the data set (figshare collection 978904) state; the package is MIT",
        ("molecules whose SMILES does not come back from their geometry are left out",),
    ),
    "moses": DataSource(
        "MOSES, a subset of its training split",
        0,
        0,
        "D. Polykovskiy et al., Molecular Sets (MOSES), Frontiers in Pharmacology 11, 565644 (2020), a selection "
        "from ZINC Clean Leads, from the Python package molsets 0.3.1; one geometry each, made here with ETKDGv3 "
        "and MMFF94",
        "MIT (of the package); ZINC's own terms were not looked into",
        ("without bromine; molecules whose SMILES does not come back from their geometry are left out",),
    ),
}
"""What is told of the built-in data sets; the numbers are counted when they are loaded."""


def identity_of(config: MoleculeTrainingConfig) -> dict[str, Any]:
    """Returns the settings that make it this run and no other; the user's own file is known by its content.

    Raises:
        InputError: That file cannot be read.
    """
    settings = identity(config)
    if config.own_data is None:
        return settings
    return settings | {"data": f"SDF {sdf.digest_of(config.own_data)}"}


def load(config: MoleculeTrainingConfig, watcher: TrainingWatcher) -> TrainingSet:
    """Loads the data of a run, preparing it on first use.

    Args:
        config: Names the data and the cache.
        watcher: Told how far it is, and what became of the user's file.

    Raises:
        InputError: The user's file cannot be used; one line says why.
        MissingDependencyError: The package that holds the data is neither installed nor to be fetched.
    """
    if config.own_data is None:
        return fine_tuning.plain(_packaged(config, watcher), SOURCES[config.data])
    announce = partial(watcher.announce, passing=True)
    own = sdf.load(config.own_data, config.network.chemistry, config.cache, config.processes, announce)
    watcher.announce(f"{config.own_data.name}: {own.text()}")
    source = _own_source(config.own_data, own)
    if not config.share_of_real:
        return fine_tuning.plain(own.molecules, source)
    real = _packaged(config, watcher)
    mixed = fine_tuning.mixed(own.molecules, source, real, SOURCES[config.package_data], config.share_of_real)
    note = fine_tuning.narrowness(
        own.molecules.smiles[:NARROWNESS_SAMPLE].tolist(),
        real.smiles[:: max(1, len(real) // NARROWNESS_SAMPLE)].tolist(),
        config.collapse_below,
        config.package_data,
    )
    return replace(mixed, note=note)


def _packaged(config: MoleculeTrainingConfig, watcher: TrainingWatcher) -> MoleculeDataset:
    def tell(done: int, total: int) -> None:
        line = f"prepared {done:,} of {total:,} molecules of {config.package_data}, once; they are cached"
        watcher.announce(line, passing=True)

    if config.package_data == "qm9":
        return qm9.load(config.cache, processes=config.processes, progress=tell)
    return moses.load(config.cache, processes=config.processes, progress=tell)


def _own_source(path: Path, own: sdf.SdfMolecules) -> DataSource:
    notes = [f"{count:,} records left out: {reason}" for reason, count in own.left_out.items()]
    return DataSource(
        f"the user's own molecules, {path.name}",
        0,
        0,
        f"a file of {own.records:,} records, SHA-256 beginning {own.digest}; where they are from is not known here",
        "not known here: yours to state before weights are passed on",
        notes,
    )


__all__ = ["SOURCES", "identity_of", "load"]
