"""Trains a molecule model; ``pilotwave train molecule`` and ``pilotwave train druglike`` run this.

One GPU, or a few CPU processes that average their gradients. Every random number of step k follows from the
seed, k and the process, and the data order from the seed and the epoch, so a run that was killed and started
again continues the same sequence. The learning rate depends on molecules seen, never on the clock: a busy
machine only delays the end.

The output folder holds the checkpoint and, from the first measurement on, the averaged weights of the last one
whose samples were varied enough, with their model card.

May import torch, the modules beside it, and :mod:`pilotwave.training`.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed

from pilotwave.backbones.molecule import training_data
from pilotwave.backbones.molecule.training_config import (
    FREE,
    DruglikeTrainingConfig,
    MoleculeTrainingConfig,
    learning_rate_factor,
)
from pilotwave.backbones.molecule.training_run import TrainingRun
from pilotwave.backbones.molecule.training_state import (
    CHECKPOINT_NAME,
    read_checkpoint,
    starting_weights,
    weights_path,
)
from pilotwave.training.device import choose_device
from pilotwave.training.progress import TrainingProgress, TrainingWatcher, watcher_of


def train(config: MoleculeTrainingConfig, progress: Callable[[TrainingProgress], None]) -> Path:
    """Trains, or continues where the checkpoint in the output folder stands.

    Args:
        config: What to train.
        progress: Called in this process about every ``report_every`` molecules and at the end; a
            :class:`~pilotwave.training.progress.TrainingWatcher` is told more and may stop the run.

    Returns:
        The path of the finished weights, e.g. ``<output>/molecule.safetensors``; of the checkpoint if it was
        paused or stopped before the end.

    Raises:
        CheckpointError: The output folder holds a damaged checkpoint or one of another run, or the weights to
            begin from are of another model.
        CollapseError: The samples lost their variety; the last good weights are kept.
        InputError: The data cannot be used, or the loss is no longer finite.
        MissingDependencyError: The package that holds the data is not installed.
        StorageError: A checkpoint could not be written.
    """
    watcher = watcher_of(progress)
    device = choose_device(config.device)
    if read_checkpoint(config) is None and config.start is not None:  # refuse before any work
        starting_weights(config)
    note = training_data.load(config, watcher).note  # prepared once, before processes share it
    if note:
        watcher.announce(f"note: {note}")
    if device.type != "cpu" or config.processes == 1:
        finished = TrainingRun(config, 0, 1, device).to_the_end(watcher)
    else:
        finished = _train_in_processes(config, watcher)
    return weights_path(config) if finished else config.output / CHECKPOINT_NAME


def _train_in_processes(config: MoleculeTrainingConfig, watcher: TrainingWatcher) -> bool:
    """Runs rank 0 here and starts the other ranks; they end when rank 0 does."""
    context = torch.multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="pilotwave-train-") as folder:
        meeting_point = str(Path(folder) / "rendezvous")
        others = [
            context.Process(target=_train_rank, args=(config, rank, meeting_point), daemon=True)
            for rank in range(1, config.processes)
        ]
        for process in others:
            process.start()
        try:
            return _train_rank(config, 0, meeting_point, watcher)
        except BaseException:
            for process in others:  # they wait for this process's gradients, and would complain at length
                process.kill()
            raise
        finally:
            for process in others:
                process.join(timeout=60)
                process.kill()


def _train_rank(
    config: MoleculeTrainingConfig, rank: int, meeting_point: str, watcher: TrainingWatcher | None = None
) -> bool:
    if rank > 0:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the first process decides when all end
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=config.processes
    )
    try:
        return TrainingRun(config, rank, config.processes, torch.device("cpu")).to_the_end(
            watcher or TrainingWatcher()
        )
    finally:
        distributed.destroy_process_group()


__all__ = [
    "CHECKPOINT_NAME",
    "FREE",
    "DruglikeTrainingConfig",
    "MoleculeTrainingConfig",
    "learning_rate_factor",
    "train",
]
