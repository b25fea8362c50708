"""The model cards of image models and of their judge, from what a training run knows.

May import the modules beside it and :mod:`pilotwave.training`.
"""

from __future__ import annotations

from torch import nn

from pilotwave.backbones.image.evaluation import SAMPLER_STEPS, Look
from pilotwave.backbones.image.network import ImageNetwork
from pilotwave.backbones.image.sources import Source
from pilotwave.backbones.image.training_config import ImageTrainingConfig
from pilotwave.backbones.image.training_data import TrainingData
from pilotwave.training.card import DataSource, Measured, ModelCard, changed_settings, command_line
from pilotwave.training.history import ComputeLog, TrainingHistory
from pilotwave.training.proportions import wilson_interval

NOT_OF_THE_MODEL = frozenset(
    {"output", "cache", "device", "checkpoint_seconds", "report_every", "evaluate_every", "samples"}
)


def describe_model(
    config: ImageTrainingConfig,
    network: ImageNetwork,
    source: Source,
    data: TrainingData,
    seen: int,
    compute: ComputeLog,
    history: TrainingHistory,
    look: Look,
    warning: str,
) -> ModelCard:
    """Returns the card of a run as it stands.

    Args:
        config: Of the run.
        network: Whose weights are written.
        source: Of the pictures.
        data: As training sees them, with the real ones mixed in.
        seen: Training pictures so far.
        compute: Where and how long.
        history: The curve so far.
        look: The last one.
        warning: What looked wrong in it, or nothing.
    """
    settings = changed_settings(config, NOT_OF_THE_MODEL)
    finished = seen >= config.images
    sources = [described(source)]
    if data.real_source is not None:
        sources.append(described(data.real_source, f"Mixed in: {data.real_share:.0%} of every batch."))
    own = seen * (1 - data.real_share) / len(data.own)
    return ModelCard(
        title=f"{config.model}.safetensors",
        summary=_summary(config, network),
        examples="pictures",
        what=_what(network),
        data=sources,
        command=command_line(config.model, settings),
        recipe=_recipe(config, data),
        settings=settings,
        progress=f"{'Finished' if finished else 'Not finished'}: {seen:,} of {config.images:,} pictures seen, "
        f"repetitions counted; {own:,.1f} times the data.",
        compute=compute,
        history=history,
        quality=_measured(look),
        limits=_limits(config, data, finished, warning),
    )


def described(source: Source, *notes: str) -> DataSource:
    """Returns what a card says of a source of pictures."""
    picture = source.train.picture
    colours = "grey" if picture.channels == 1 else "RGB over white"
    shown = ", ".join(picture.class_names[:20]) + (", ..." if len(picture.class_names) > 20 else "")
    size = f"{picture.side}x{picture.side} pixels, {colours}, {len(picture.class_names)} class(es): {shown}."
    return DataSource(
        source.name, len(source.train), len(source.held_out), source.origin, source.licence, (size, *notes)
    )


def parameters_of(network: nn.Module) -> str:
    """Returns the size of a network in words."""
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} million parameters"


def _summary(config: ImageTrainingConfig, network: ImageNetwork) -> str:
    picture = network.picture
    return (
        f"A diffusion model of {picture.side}x{picture.side} pictures, class-conditional, to be steered. In a "
        f"campaign file: `backbone: {{kind: image, checkpoint: {config.model}.safetensors}}`."
    )


def _what(network: ImageNetwork) -> list[str]:
    picture, shape = network.picture, network.config
    grid = picture.side // picture.fold
    return [
        f"Latent: the picture itself, shape {picture.latent_shape}, pixels from -1 (black) to 1.",
        f"Condition: the class, 0 to {len(picture.class_names) - 1}, drawn per sample by the sample's seed.",
        f"Network: a U-Net of {parameters_of(network)} over {grid}x{grid} cells of {picture.fold}x{picture.fold} "
        f"pixels (widths {shape.widths[0]} and {shape.widths[1]}, attention at {grid // 2}x{grid // 2}); it "
        "predicts the velocity, cosine schedule in continuous time.",
        "Sampler: DDIM with eta = 1, equal angles, clean prediction clipped to [-1, 1]; 20 steps by default.",
        "File: safetensors, float16, averaged weights; network, classes and progress are in its header.",
    ]


def _recipe(config: ImageTrainingConfig, data: TrainingData) -> list[str]:
    lines = [
        f"Muon ({config.matrix_learning_rate:g}) on the matrices of the blocks, AdamW ({config.learning_rate:g}) "
        f"on the rest; linear warm-up over {config.warm_up:.0%}, linear to zero over the last {config.decay:.0%}; "
        f"averaged weights ({config.ema_decay:g}); batches of {config.batch_size}; {config.precision} products; "
        f"seed {config.seed}.",
        f"The class is hidden for {config.class_dropout:.0%} of the pictures, so guidance works"
        + ("; every other picture is mirrored." if config.mirror else "."),
    ]
    if config.start is not None:
        lines.append(f"It began from the weights `{config.start}`, with fresh optimizers.")
    if config.fine_tunes:
        mixed = f"{data.real_share:.0%} of every batch" if data.real_share else "none was mixed in"
        lines.append(f"Share of real pictures mixed into the user's own: {mixed}.")
    if config.collapse_below:
        lines.append(
            f"Collapse monitor: the run stops when the samples' diversity is below {config.collapse_below:g} of "
            "the data's on two measurements running (after Alemohammad et al., arXiv 2307.01850)."
        )
    return lines


def _measured(look: Look) -> list[Measured]:
    count, of = len(look.asked), f"{len(look.asked)} samples, classes in turn, {SAMPLER_STEPS} steps"
    measured = [Measured("diversity of samples over the data's", look.measures["relative_diversity"], None, of)]
    if "judge_agreement" in look.measures:
        agreeing = round(look.measures["judge_agreement"] * count)
        interval = wilson_interval(agreeing, count)
        measured.append(Measured("judge takes the sample for its class", agreeing / count, interval, of))
    return measured


def _limits(config: ImageTrainingConfig, data: TrainingData, finished: bool, warning: str) -> list[str]:
    lines = [] if finished else ["The training was not finished when this card was written."]
    lines += [f"At the last measurement: {warning}."] if warning else []
    if config.fine_tunes and not data.real_share:
        lines.append(
            "No real pictures were mixed in: none fit, or real_share is 0. If the user's pictures came from a "
            "model, this one may have lost variety that its monitor, which compares with them, does not see."
        )
    return [
        *lines,
        "It draws what it was shown: no other classes, no other size.",
        "Whether it copies training pictures is not measured by the training command.",
        "Steered hard, it leaves what it learned, like any model: look at pictures that please the oracle.",
        "The same command and seed give the same weights on one machine with the same packages, not elsewhere.",
    ]


__all__ = ["NOT_OF_THE_MODEL", "describe_model", "described", "parameters_of"]
