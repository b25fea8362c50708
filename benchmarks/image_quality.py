"""Measures the built-in image model, and keeps what it measured as a section of RESULTS.md.

    python benchmarks/image_quality.py --record --picture docs/pictures/image_samples.png

A small classifier is trained here, on a split and from a seed of its own, and asked which class each sample
shows: its agreement with the class that was asked for, by number of sampler steps and by guidance, beside its
accuracy on real held-out pictures (the ceiling). Also the Fréchet distance of its features to held-out
pictures (real training pictures in the same number are the floor), diversity within a class, whether samples
are copies of training pictures, and speed. Needs the extra ``images`` and the Debian package
dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from results import describe_machine, markdown_table, write_section
from torch import Tensor, nn
from torch.nn import functional

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.backbone import ImageBackbone, ImageBackboneConfig
from pilotwave.report.image_grid import save_image_grid
from pilotwave.samples import ImageSample
from pilotwave.training.weights import read_weights
from pilotwave.types import Draw

HEADING = "## Built-in image model"
CLASSES = len(dataset.CLASS_NAMES)
CLASSIFIER_PICTURES = 50_000


class Classifier(nn.Module):
    """A small convolutional network; its last hidden layer serves as features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 9, 64), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Linear(64, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.last(self.features(pictures))


@dataclass(frozen=True)
class Judged:
    """What the classifier says of pictures.

    Attributes:
        labels: The most likely class of each, shape (n,).
        features: Shape (n, 64).
    """

    labels: npt.NDArray[np.int64]
    features: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampled:
    """Samples of one setting.

    Attributes:
        asked: The class each was asked to show, shape (n,).
        pixels: uint8 of shape (n, 28, 28).
        per_second: Samples a second of processor time, which other programs on the machine do not lengthen.
    """

    asked: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    per_second: float


def to_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).float()[:, None] / 127.5 - 1.0


def train_classifier(train: dataset.LabelledImages, seed: int, epochs: int) -> Classifier:
    """Trains on all pictures given, shifted at random so that it does not judge by position."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    own = random.permutation(len(train))
    network = Classifier()
    size, steps = 128, epochs * len(own) // 128
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        if step * size % len(own) < size:
            random.shuffle(own)
        rows = own[np.arange(step * size, (step + 1) * size) % len(own)]
        pictures = functional.pad(to_tensor(train.images[rows]), (2, 2, 2, 2), value=-1.0)
        top, left = random.integers(0, 5, 2)
        logits = network(pictures[..., top : top + 28, left : left + 28])
        functional.cross_entropy(logits, torch.from_numpy(train.labels[rows])).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return network.eval()


def rows_of(data: dataset.LabelledImages, rows: npt.NDArray[np.int64]) -> dataset.LabelledImages:
    return dataset.LabelledImages(data.images[rows], data.labels[rows])


@torch.no_grad()
def judge(classifier: Classifier, pixels: npt.NDArray[np.uint8]) -> Judged:
    features = torch.cat([classifier.features(part) for part in to_tensor(pixels).split(500)])
    return Judged(classifier.last(features).argmax(1).numpy(), features.double().numpy())


def draw(backbone: ImageBackbone, count: int, seed: int, batch: int = 50) -> Sampled:
    """Draws samples whose classes take turns."""
    draws = [Draw.of(seed, 0, slot) for slot in range(count)]
    asked = torch.arange(count) % CLASSES
    noise = backbone.draw_noise(draws)
    backbone.sample(noise[:, :2], asked[:2, None])
    started = time.process_time()
    latents = torch.cat(
        [backbone.sample(noise[:, i : i + batch], asked[i : i + batch, None]) for i in range(0, count, batch)]
    )
    seconds = time.process_time() - started
    decoded = backbone.decode(latents, asked[:, None])
    pixels = [sample.pixels[..., 0] for sample in decoded if isinstance(sample, ImageSample)]
    if len(pixels) != count:
        raise SystemExit(f"{count - len(pixels)} of {count} samples are not finite: the weights are unusable")
    return Sampled(asked.numpy(), np.stack(pixels), count / seconds)


def share(hits: int, count: int) -> str:
    """Returns a percentage with its 95% interval (Wilson)."""
    z, p = 1.96, hits / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return f"{100 * p:.1f}% ({100 * (centre - half):.1f}-{100 * (centre + half):.1f})"


def frechet_distance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Returns the squared Fréchet distance of the Gaussians that fit two sets of features (n, d)."""
    mean = one.mean(0) - other.mean(0)
    first, second = np.cov(one.T), np.cov(other.T)
    # the trace of (first @ second)^(1/2), from the eigenvalues of a similar, symmetric matrix
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(mean @ mean + np.trace(first) + np.trace(second) - 2 * cross)


def pixel_diversity(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
    """Returns the mean distance of two pictures of one class, in pixels from 0 to 1 (root mean square)."""
    distances = []
    for label in range(CLASSES):
        inside = pixels[labels == label].reshape(-1, 784).astype(np.float64) / 255
        pairs = np.sqrt(np.square(inside[:, None] - inside[None]).mean(-1))
        distances.append(pairs[np.triu_indices(len(inside), 1)].mean())
    return float(np.mean(distances))


def nearest_distance(pixels: npt.NDArray[np.uint8], train: npt.NDArray[np.uint8]) -> float:
    """Returns the median root mean square distance of pictures to the nearest training picture."""
    points = torch.from_numpy(pixels.reshape(-1, 784)).float() / 255
    nearest = torch.full((len(points),), torch.inf)
    for part in torch.from_numpy(train.reshape(-1, 784)).split(5000):
        nearest = torch.minimum(nearest, torch.cdist(points, part.float() / 255).amin(1))
    return float((nearest / math.sqrt(784)).median())


def main() -> None:
    """Measures, prints, records, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="builtin")
    parser.add_argument("--samples", type=int, default=500, help="per setting; the classes take turns")
    parser.add_argument("--steps", type=int, nargs="*", default=[5, 10, 20, 50])
    parser.add_argument("--guidance", type=float, nargs="*", default=[2.0], help="scales tried at 20 steps")
    parser.add_argument("--epochs", type=int, default=4, help="of the classifier")
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


def build(checkpoint: str, steps: int, guidance_scale: float = 1.0) -> ImageBackbone:
    config = ImageBackboneConfig(kind="image", checkpoint=checkpoint, steps=steps, guidance_scale=guidance_scale)
    backbone = config.build("cpu")
    assert isinstance(backbone, ImageBackbone)
    return backbone


def save_picture(path: Path, checkpoint: str, seed: int) -> None:
    """Draws the first eight samples of every class, a column each; none is chosen."""
    sampled = draw(build(checkpoint, 20), 8 * CLASSES, seed)
    samples = [ImageSample(pixels[..., None]) for pixels in sampled.pixels]
    labels = [dataset.CLASS_NAMES[label] for label in sampled.asked]
    save_image_grid(samples, path, columns=CLASSES, labels=labels)


def measure(arguments: argparse.Namespace) -> str:
    """Returns the section's body."""
    train, held_out = dataset.load("train"), dataset.load("held-out")
    order = np.random.default_rng(arguments.seed).permutation(len(train))
    classifier = train_classifier(rows_of(train, order[:CLASSIFIER_PICTURES]), arguments.seed, arguments.epochs)
    unseen = rows_of(train, order[CLASSIFIER_PICTURES:])
    real = judge(classifier, held_out.images)
    print(f"classifier: {np.mean(real.labels == held_out.labels):.4f} on held-out pictures", flush=True)
    settings = [(steps, 1.0) for steps in arguments.steps] + [(20, scale) for scale in arguments.guidance]
    rows, lines = [], []
    for steps, scale in settings:
        sampled = draw(build(arguments.checkpoint, steps, scale), arguments.samples, arguments.seed)
        judged = judge(classifier, sampled.pixels)
        hits = judged.labels == sampled.asked
        distance = frechet_distance(judged.features, real.features)
        diversity = pixel_diversity(sampled.pixels, sampled.asked)
        agreement = share(int(hits.sum()), len(hits))
        row = [
            f"{steps}",
            f"{scale:g}",
            agreement,
            f"{distance:.2f}",
            f"{diversity:.3f}",
            f"{sampled.per_second:.1f}",
        ]
        rows.append(row)
        print(row, flush=True)
        if (steps, scale) == (20, 1.0):
            lines = closer_look(sampled, hits, train, held_out, real)
    rows += real_rows(classifier, unseen, held_out, real, arguments.samples)
    header = ["steps", "guidance", "classifier agrees", "Fréchet distance", "diversity", "samples per CPU second"]
    progress = read_weights_progress(arguments.checkpoint)
    command = (
        f"python benchmarks/image_quality.py --samples {arguments.samples} --epochs {arguments.epochs} --record"
    )
    return "\n".join(
        [
            f"`{command}`, draws of seed {arguments.seed}, {arguments.samples} samples a row, classes in turn. "
            f"{describe_machine(1)}. Weights: {progress}. Intervals are 95% (Wilson).",
            "",
            markdown_table(header, rows),
            "",
            *lines,
        ]
    )


def closer_look(
    sampled: Sampled,
    hits: npt.NDArray[np.bool_],
    train: dataset.LabelledImages,
    held_out: dataset.LabelledImages,
    real: Judged,
) -> list[str]:
    """Returns lines on the 20-step samples: agreement by class, and how near they are to training pictures."""
    by_class = [
        f"{name} {100 * hits[sampled.asked == label].mean():.0f} "
        f"({100 * np.mean(real.labels[held_out.labels == label] == label):.0f})"
        for label, name in enumerate(dataset.CLASS_NAMES)
    ]
    own = nearest_distance(sampled.pixels, train.images)
    theirs = nearest_distance(held_out.images[: len(sampled.pixels)], train.images)
    return [
        f"- Agreement by class in percent, 20 steps, no guidance (real held-out pictures): {', '.join(by_class)}.",
        f"- Median distance to the nearest of {len(train):,} training pictures (root mean square, pixels 0 to 1): "
        f"samples {own:.3f}, real held-out pictures {theirs:.3f}; copies would be near 0.",
    ]


def real_rows(
    classifier: Classifier,
    unseen: dataset.LabelledImages,
    held_out: dataset.LabelledImages,
    real: Judged,
    count: int,
) -> list[list[str]]:
    """Returns what real pictures score: held-out ones as the ceiling, training ones of the same number as floor."""
    hits = int((real.labels == held_out.labels).sum())
    each = [np.flatnonzero(unseen.labels == label)[: count // CLASSES] for label in range(CLASSES)]
    some = rows_of(unseen, np.concatenate(each))
    floor = frechet_distance(judge(classifier, some.images).features, real.features)
    diversity = pixel_diversity(some.images, some.labels)
    return [["real pictures", "", share(hits, len(held_out)), f"{floor:.2f}", f"{diversity:.3f}", ""]]


def read_weights_progress(checkpoint: str) -> str:
    from pilotwave.backbones.image.backbone import BUILTIN_WEIGHTS, MODEL

    path = BUILTIN_WEIGHTS if checkpoint == "builtin" else Path(checkpoint)
    progress = read_weights(path, model=MODEL).progress
    loss = progress.get("held_out_loss")
    told = f", held-out loss {loss:.4f}" if loss is not None else ""
    return f"{progress['images_seen']:,} training pictures seen{told}"


if __name__ == "__main__":
    main()
