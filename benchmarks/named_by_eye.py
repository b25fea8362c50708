"""Has a person name samples of the image model without knowing which class was asked for, or which are real.

    python benchmarks/named_by_eye.py --draw sheet.png
    python benchmarks/named_by_eye.py --answers "0t 1c ..." --record

Half of the pictures are samples, half are held-out ones, in an order that hides both; the classes are drawn, not in
turn. Answers are one digit a picture in the order of the sheet, spaces ignored: 0 t-shirt, 1 trouser, 2 pullover,
3 dress, 4 coat, 5 sandal, 6 shirt, 7 sneaker, 8 bag, 9 ankle boot. The same seed gives the same sheet. How often
real pictures are named rightly is the ceiling. Needs the Debian package dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from results import markdown_table, write_section

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.backbone import ImageBackboneConfig
from pilotwave.backbones.unguided import sample_unguided, unguided_draws
from pilotwave.report.image_grid import save_image_grid
from pilotwave.samples import ImageSample
from pilotwave.training.proportions import in_percent

HEADING = "## Image samples named by eye, {steps} steps, guidance {guidance:g}"
ROW, ZOOM = 10, 4


def main() -> None:
    """Draws the sheet, or scores the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=Path, help="PNG of the sheet, without labels")
    parser.add_argument("--answers", help="a digit a picture, row by row")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--guidance", type=float, default=1.0, help="classifier-free; above 1 twice the work a step"
    )
    parser.add_argument("--seed", type=int, default=3_000_000)
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures, classes, sampled = sheet(arguments)
    if arguments.draw:
        save_image_grid(pictures, arguments.draw, columns=ROW, zoom=ZOOM)
    if arguments.answers:
        body = score(arguments, classes, sampled)
        print(body)
        if arguments.record:
            write_section(HEADING.format(**vars(arguments)), body)


def sheet(arguments: argparse.Namespace) -> tuple[list[ImageSample], list[int], list[bool]]:
    """Returns the pictures in the order of the sheet, their classes, and whether each is a sample."""
    count, random = arguments.pictures, np.random.default_rng(arguments.seed)
    fields = {"kind": "image", "steps": arguments.steps, "guidance_scale": arguments.guidance}
    backbone = ImageBackboneConfig.model_validate(fields).build("cpu")
    draws = unguided_draws(arguments.seed, count // 2)
    samples = [
        item for batch in sample_unguided(backbone, draws) for item in batch if isinstance(item, ImageSample)
    ]
    real = dataset.load("held-out")
    chosen = random.choice(len(real), count - len(samples), replace=False)
    classes = [*backbone.draw_conditions(draws)[:, 0].tolist(), *real.labels[chosen].tolist()]
    pictures = [*samples, *(ImageSample(pixels) for pixels in real.images[chosen])]
    order = random.permutation(count).tolist()
    sampled = [place < len(samples) for place in order]
    return [pictures[place] for place in order], [classes[place] for place in order], sampled


def score(arguments: argparse.Namespace, classes: list[int], sampled: list[bool]) -> str:
    answers = [int(digit) for digit in arguments.answers if digit.isdigit()]
    if len(answers) != len(classes):
        raise SystemExit(f"expected {len(classes)} digits, one a picture, got {len(answers)}")
    rows, mistakes = [], []
    for name, wanted in (("samples", True), ("real held-out pictures", False)):
        pairs = [
            (said, true)
            for said, true, is_sample in zip(answers, classes, sampled, strict=True)
            if is_sample is wanted
        ]
        right = sum(said == true for said, true in pairs)
        rows.append([name, str(len(pairs)), in_percent(right, len(pairs))])
        confused = Counter(
            (dataset.CLASS_NAMES[true], dataset.CLASS_NAMES[said]) for said, true in pairs if said != true
        )
        told = ", ".join(f"{true} for {said} {n}" for (true, said), n in confused.most_common())
        mistakes.append(f"- {name}, asked for or labelled, and what they were taken for: {told or 'no mistake'}")
    settings = f"--steps {arguments.steps} --guidance {arguments.guidance:g} --seed {arguments.seed}"
    command = f"`python benchmarks/named_by_eye.py {settings}`"
    return "\n".join(
        [
            f"{command}, one pair of eyes, a sheet without labels, samples and real pictures mixed. "
            "Intervals are 95% (Wilson).",
            "",
            markdown_table(["pictures", "number", "named rightly"], rows),
            "",
            *mistakes,
        ]
    )


if __name__ == "__main__":
    main()
