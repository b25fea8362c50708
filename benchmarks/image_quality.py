"""Measures the built-in image model, and keeps what it measured as a section of RESULTS.md.

    python benchmarks/image_quality.py --record --picture docs/pictures/image_samples.png

The shipped judge, a classifier trained on a split and from a seed of its own which never guides, is asked which
class each sample shows: its agreement with the class that was asked for, by number of sampler steps and by
guidance, beside its accuracy on real held-out pictures. Also the Fréchet distance of its features to held-out
pictures, corrected for finite samples (two halves of the real pictures are the floor), diversity within a class,
whether samples are copies of training pictures, and speed. Needs the Debian package dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from results import describe_machine, markdown_table, write_section

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.backbone import ImageBackbone, ImageBackboneConfig
from pilotwave.backbones.image.judge import Judge, Judgement, read_judge
from pilotwave.backbones.image.quality import (
    ImageQuality,
    assess,
    draw_in_turns,
    nearest_distances,
)
from pilotwave.backbones.image.stored import weights_path
from pilotwave.report.image_grid import save_image_grid
from pilotwave.samples import ImageSample
from pilotwave.training.proportions import in_percent
from pilotwave.training.weights import read_weights

HEADING = "## Built-in image model"
CLASSES = len(dataset.CLASS_NAMES)
HEADER = [
    "steps",
    "guidance",
    "precision",
    "judge agrees",
    "Fréchet distance, corrected",
    "uncorrected",
    "diversity",
    "samples per CPU second",
]


def main() -> None:
    """Measures, prints, records, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="builtin")
    parser.add_argument("--samples", type=int, default=500, help="per setting; the classes take turns")
    parser.add_argument("--steps", type=int, nargs="*", default=[5, 10, 20, 50])
    parser.add_argument("--guidance", type=float, nargs="*", default=[2.0], help="scales tried at 20 steps")
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    parser.add_argument("--picture", type=Path, help="PNG with eight samples of every class")
    parser.add_argument("--picture-only", action="store_true", help="draw the picture and measure nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.picture:
        save_picture(arguments.picture, arguments.checkpoint, arguments.seed)
    if not arguments.picture_only:
        body = measure(arguments)
        print(body)
        if arguments.record:
            write_section(HEADING, body)


def build(checkpoint: str, steps: int, guidance_scale: float = 1.0, precision: str = "float32") -> ImageBackbone:
    fields = {"checkpoint": checkpoint, "steps": steps, "guidance_scale": guidance_scale, "precision": precision}
    backbone = ImageBackboneConfig.model_validate({"kind": "image", **fields}).build("cpu")
    assert isinstance(backbone, ImageBackbone)
    return backbone


def save_picture(path: Path, checkpoint: str, seed: int) -> None:
    """Draws the first eight samples of every class, a column each; none is chosen."""
    asked, pixels = draw_in_turns(build(checkpoint, 20), 8 * CLASSES, seed)
    labels = [dataset.CLASS_NAMES[label] for label in asked]
    save_image_grid([ImageSample(picture) for picture in pixels], path, columns=CLASSES, labels=labels)


def measure(arguments: argparse.Namespace) -> str:
    """Returns the section's body."""
    train, held_out = dataset.load("train"), dataset.load("held-out")
    judge = read_judge()
    judged = judge(held_out.images)
    settings = [(steps, 1.0, "float32") for steps in arguments.steps]
    settings += [(20, scale, "float32") for scale in arguments.guidance] + [(20, 1.0, "bfloat16")]
    rows: list[list[str]] = []
    real: list[list[str]] = []
    lines: list[str] = []
    for steps, scale, precision in settings:
        backbone = build(arguments.checkpoint, steps, scale, precision)
        asked, pixels = draw_in_turns(backbone, arguments.samples, arguments.seed)
        quality = assess(asked, pixels, judge, held_out, arguments.seed, judged)
        rows.append([f"{steps}", f"{scale:g}", precision, *cells(quality), speed(backbone, arguments.seed)])
        print(rows[-1], flush=True)
        if not lines or (steps, scale, precision) == (20, 1.0, "float32"):
            lines = closer_look(quality, judged, pixels, train, held_out)
            agreed = in_percent(int((judged.labels == held_out.labels).sum()), len(held_out))
            floor = f"{quality.frechet_floor:.2f}"
            real = [["real pictures", "", "", agreed, floor, "", f"{quality.real_diversity:.3f}", ""]]
    command = f"python benchmarks/image_quality.py --samples {arguments.samples} --record"
    return "\n".join(
        [
            f"`{command}`, draws of seed {arguments.seed}, {arguments.samples} samples a row, classes in turn. "
            f"{describe_machine(1)}. Weights: {progress_of(arguments.checkpoint)}. {told_of(judge)} "
            "Intervals are 95% (Wilson). Of the real pictures, the distance is between two halves of the held-out "
            "ones, one of them of as many pictures as a row has samples.",
            "",
            markdown_table(HEADER, rows + real),
            "",
            *lines,
        ]
    )


def cells(quality: ImageQuality) -> list[str]:
    """Returns what the table says of one measurement."""
    return [
        in_percent(quality.agreeing, quality.count),
        f"{quality.frechet:.2f}",
        f"{quality.frechet_uncorrected:.2f}",
        f"{quality.diversity:.3f}",
    ]


def speed(backbone: ImageBackbone, seed: int, count: int = 100) -> str:
    """Returns samples a second of processor time, which other programs on the machine hardly lengthen."""
    draw_in_turns(backbone, 10, seed)
    started = time.process_time()
    draw_in_turns(backbone, count, seed)
    return f"{count / (time.process_time() - started):.0f}"


def closer_look(
    quality: ImageQuality,
    judged: Judgement,
    pixels: np.ndarray,
    train: dataset.LabelledImages,
    held_out: dataset.LabelledImages,
) -> list[str]:
    """Returns lines on the 20-step samples: agreement by class, and how near they are to training pictures."""
    labels = judged.labels
    by_class = [
        f"{name} {100 * quality.by_class[label]:.0f} "
        f"({100 * np.mean(labels[held_out.labels == label] == label):.0f})"
        for label, name in enumerate(dataset.CLASS_NAMES)
    ]
    own = nearest_distances(pixels, train.images)
    theirs = nearest_distances(held_out.images[: len(pixels)], train.images)
    copies = float(np.quantile(theirs, 0.01))
    return [
        f"- Agreement by class in percent, 20 steps, no guidance (real held-out pictures): {', '.join(by_class)}. "
        f"Mean calibrated probability of the class asked for: {quality.confidence:.3f}.",
        f"- Distance to the nearest of {len(train):,} training pictures (root mean square, pixels 0 to 1), median: "
        f"samples {np.median(own):.3f}, real held-out pictures {np.median(theirs):.3f}. Nearer than all but 1% of "
        f"real held-out pictures ({copies:.3f}): {in_percent(int((own < copies).sum()), len(own))} of the samples.",
    ]


def progress_of(checkpoint: str) -> str:
    """Returns how far the training of the weights came."""
    progress = read_weights(weights_path(checkpoint), model="image").progress
    loss = progress.get("held_out_loss")
    told = f", held-out loss {loss:.4f}" if loss is not None else ""
    return f"{progress['images_seen']:,} training pictures seen{told}"


def told_of(judge: Judge) -> str:
    """Returns what the judge's own training measured."""
    measured = judge.measured
    return (
        f"Judge: accuracy {100 * measured['accuracy']:.1f}% and expected calibration error "
        f"{100 * measured['expected_calibration_error']:.1f}% on {measured['measured_on']:,} held-out pictures."
    )


if __name__ == "__main__":
    main()
