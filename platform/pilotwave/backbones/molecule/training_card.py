"""The model card of a molecule model, from what its training run knows.

May import the modules beside it and :mod:`pilotwave.training`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilotwave.backbones.molecule.fine_tuning import TrainingSet
from pilotwave.backbones.molecule.network import MoleculeNetwork, NetworkConfig
from pilotwave.backbones.molecule.training_config import MoleculeTrainingConfig
from pilotwave.backbones.molecule.training_measurement import Measurement
from pilotwave.training.card import Measured, ModelCard, changed_settings, command_line
from pilotwave.training.history import ComputeLog, TrainingHistory
from pilotwave.training.order import real_count

NOT_OF_THE_MODEL = frozenset(
    {"output", "cache", "pause_after_minutes", "checkpoint_seconds", "report_every", "sample_every", "device"}
)


def describe(
    config: MoleculeTrainingConfig,
    network: MoleculeNetwork,
    data: TrainingSet,
    seen: int,
    compute: ComputeLog,
    history: TrainingHistory,
    measurement: Measurement | None,
    warning: str = "",
) -> ModelCard:
    """Returns the card of a run as it stands.

    Args:
        config: Of the run.
        network: Whose weights are written.
        data: What it is trained on.
        seen: Training molecules so far.
        compute: Where and how long.
        history: The curve so far.
        measurement: The last one, or None.
        warning: What looked wrong in it, or nothing.
    """
    settings = changed_settings(config, NOT_OF_THE_MODEL)
    finished = seen >= config.molecules
    measured: Sequence[Measured] = () if measurement is None else measurement.measured()
    return ModelCard(
        title=f"{config.model}.safetensors",
        summary=_summary(config),
        examples="molecules",
        what=_what(network),
        data=data.sources,
        command=command_line(config.model, settings),
        recipe=_recipe(config, data),
        settings=settings,
        progress=_progress(config, data, seen),
        compute=compute,
        history=history,
        quality=measured,
        limits=_limits(config, data, finished, warning),
    )


def _progress(config: MoleculeTrainingConfig, data: TrainingSet, seen: int) -> str:
    state = "Finished" if seen >= config.molecules else "Not finished"
    own = seen * (config.batch_size - real_count(config.batch_size, data.real_share)) / config.batch_size
    times = f"{own / data.own:,.1f} times" if own >= data.own else f"{own / data.own:.0%} of"
    whose = "the data" if config.own_data is None else "the user's molecules"
    return f"{state}: {seen:,} of {config.molecules:,} molecules seen, repetitions counted; {times} {whose}."


def _summary(config: MoleculeTrainingConfig) -> str:
    shape = config.network
    elements = ", ".join(_elements(shape))
    kind = f"A diffusion model of molecules in three dimensions: 2 to {shape.slots} heavy atoms of {elements}."
    return (
        f"{kind} In a campaign file: `backbone: {{kind: {config.model}, checkpoint: {config.model}.safetensors}}`."
    )


def _what(network: MoleculeNetwork) -> list[str]:
    shape = network.config
    parameters = sum(parameter.numel() for parameter in network.parameters())
    channels = shape.chemistry.channels
    return [
        f"Latent: shape ({shape.slots}, {channels}), a slot per heavy atom in the order of the canonical SMILES; "
        "slots from the molecule's atom count on are padding and zero.",
        f"`latent[slot, 0:3]`: position in units of {shape.length_unit:g} Å, centred on the heavy atoms.",
        f"`latent[slot, 3:{channels}]`: one-hot of the class times {shape.class_scale:g}; a class is an element "
        f"with its hydrogens: {', '.join(shape.classes)}.",
        "The atom count is a condition, drawn per sample from the sizes of the training data by the sample's seed.",
        f"Network: a transformer of {parameters / 1e6:.2f} million parameters (width {shape.width}, {shape.layers} "
        f"layers, {shape.heads} heads) with {shape.pair_blocks} pair blocks; EDM preconditioning, noise up to "
        f"{shape.largest_noise:g} length units.",
        "Decoding: bonds from distances, bond orders by an exact search in which every valence is met, "
        "hydrogens with coordinates by RDKit.",
        "File: safetensors, float16, averaged weights; network, atom counts and progress are in its header.",
    ]


def _recipe(config: MoleculeTrainingConfig, data: TrainingSet) -> list[str]:
    lines = [
        f"Muon ({config.trunk_learning_rate:g}) on the transformer's matrices, AdamW ({config.learning_rate:g}) on "
        f"the rest; constant rates, linear to zero over the last {config.decay:.0%}; averaged weights "
        f"({config.ema_decay:g}); batches of {config.batch_size}; bfloat16 products; seed {config.seed}.",
        f"ln(noise level) normal with mean {config.log_noise_mean:g} and standard deviation "
        f"{config.log_noise_spread:g}; random rotations and reflections.",
    ]
    if config.start is not None:
        lines.append(f"Fine-tuned: it began from the weights `{config.start}`, with fresh optimizers.")
    if config.own_data is not None:
        mixed = f"{data.real_share:.0%} of every batch, at least" if data.real_share else "none was mixed in"
        lines.append(f"Share of real data ({config.package_data}) mixed into the user's own: {mixed}.")
    if config.collapse_below:
        lines.append(
            f"Collapse monitor: the run stops when the samples' diversity is below {config.collapse_below:g} of "
            "the data's on two measurements running (after Alemohammad et al., arXiv 2307.01850)."
        )
    return lines


def _limits(config: MoleculeTrainingConfig, data: TrainingSet, finished: bool, warning: str) -> list[str]:
    lines = [] if finished else ["The training was not finished when this card was written."]
    lines += [f"At the last measurement: {warning}."] if warning else []
    lines += [f"The data: {data.note}."] if data.note else []
    if config.own_data is not None and not data.real_share:
        lines.append(
            "No real data was mixed in. If the user's molecules came from a model, this one may have lost variety "
            "that its monitor, which compares with the same molecules, does not see."
        )
    return [
        *lines,
        f"It knows {', '.join(_elements(config.network))} and uncharged molecules of 2 to {config.network.slots} "
        "heavy atoms, and the taste of its data; it was not tested on anything else.",
        "Validity is chemistry on paper: whether geometries survive a quantum-chemical relaxation is not measured "
        "by the training command. They are near a minimum, not at one: relax before comparing energies.",
        "The figures above are of unguided samples, drawn with bfloat16 products. Steered by an oracle it leaves "
        "what it learned; strain and synthesizability belong into the objective or a constraint.",
        "Chirality is not controlled: training shows every molecule in both hands; SMILES carry no stereo marks.",
        "The same command and seed give the same weights on one machine with the same packages, not elsewhere.",
    ]


def _elements(shape: NetworkConfig) -> list[str]:
    return list(dict.fromkeys(atom.element for atom in shape.chemistry.classes))


__all__ = ["describe"]
