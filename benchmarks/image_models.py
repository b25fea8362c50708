"""Measures the image model for `models.py`: what the judge says of samples, by steps, precision and guidance."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import draws  # first: it sets the threads before anything heavy is imported
from results import describe_machine, markdown_table

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.backbone import ImageBackbone, ImageBackboneConfig
from pilotwave.backbones.image.judge import BUILTIN_JUDGE, read_judge
from pilotwave.backbones.image.judge import MODEL as JUDGE
from pilotwave.backbones.image.quality import ImageQuality, describe, draw_in_turns, measure_quality
from pilotwave.backbones.image.stored import weights_path
from pilotwave.storage import write_atomically
from pilotwave.training.proportions import in_percent
from pilotwave.training.weights import read_weights

HEADING = "## Built-in image model by steps"
MAIN_STEPS = (20, 50)
TESTED_STEPS = 20
GUIDANCE = 2.0
TIMED = 100


@dataclass(frozen=True)
class Setting:
    """One way to sample from the image model."""

    checkpoint: str
    steps: int
    guidance_scale: float = 1.0
    precision: str = "float32"

    def build(self) -> ImageBackbone:
        backbone = ImageBackboneConfig.model_validate({"kind": "image", **asdict(self)}).build("cpu")
        assert isinstance(backbone, ImageBackbone)
        return backbone


def measure(arguments: argparse.Namespace) -> tuple[str, str, dict[str, object]]:
    """Returns the section's heading and body, and what the test repeats."""
    found = measure_all(settings(arguments), arguments)
    rows = []
    for setting, (quality, per_cpu_second) in found.items():
        rows.append(
            [
                str(setting.steps),
                f"{setting.guidance_scale:g}",
                setting.precision,
                f"{quality.count:,}",
                in_percent(quality.agreeing, quality.count),
                f"{quality.frechet:.2f}",
                f"{quality.diversity:.3f}",
                f"{per_cpu_second:.1f}",
            ]
        )
    tested = Setting(arguments.checkpoint, TESTED_STEPS)
    quality, _ = found[tested]
    recorded: dict[str, object] = {
        "fingerprint": tested.build().fingerprint,
        "steps": TESTED_STEPS,
        "seed": arguments.seed,
        "drawn": quality.count,
        "agreeing": quality.agreeing,
    }
    judge = read_judge()
    header = ["steps", "guidance", "precision", "samples", "judge agrees", "Fréchet", "diversity", "per CPU second"]
    weights = read_weights(weights_path(arguments.checkpoint), model="image")
    body = [
        f"`python benchmarks/models.py image --samples {arguments.samples} "
        f"--samples-other {arguments.samples_other} --steps {' '.join(map(str, arguments.steps))} "
        f"--seed {arguments.seed} --record`",
        "",
        f"Draws of seed {arguments.seed}, classes in turn, one thread a process, no GPU; intervals are 95% "
        f"(Wilson). {describe_machine(1)}. Weights: fingerprint {weights.fingerprint}. The Fréchet distance is of "
        f"the judge's features, corrected for finite samples; the diversity of real pictures is "
        f"{quality.real_diversity:.3f}, the Fréchet distance of their halves {quality.frechet_floor:.2f}.",
        "",
        markdown_table(header, rows),
        "",
        f"At {TESTED_STEPS} steps:",
        "",
        *(f"- {line}" for line in describe(quality, judge.picture.class_names)),
    ]
    return HEADING, "\n".join(body), recorded


def settings(arguments: argparse.Namespace) -> list[tuple[Setting, int]]:
    """Returns every setting with its number of samples, the main ones first."""
    main = [(Setting(arguments.checkpoint, steps), arguments.samples) for steps in MAIN_STEPS]
    few = min(arguments.samples_other, arguments.samples)
    if not few:
        return main
    others = [Setting(arguments.checkpoint, steps) for steps in sorted({*arguments.steps} - {*MAIN_STEPS})]
    others.append(Setting(arguments.checkpoint, TESTED_STEPS, precision="bfloat16"))
    others.append(Setting(arguments.checkpoint, TESTED_STEPS, guidance_scale=GUIDANCE))
    return main + [(setting, few) for setting in others]


def measure_all(
    wanted: list[tuple[Setting, int]], arguments: argparse.Namespace
) -> dict[Setting, tuple[ImageQuality, float]]:
    """Measures settings side by side, as far as what they gave is not kept already."""
    judge = read_weights(BUILTIN_JUDGE, model=JUDGE).fingerprint
    paths = {
        setting: arguments.work / setting.build().fingerprint / f"{count}-{arguments.seed}-judge-{judge}.json"
        for setting, count in wanted
    }
    calls = [
        (setting, count, arguments.seed, paths[setting]) for setting, count in wanted if not paths[setting].exists()
    ]
    for place, _ in draws.side_by_side(measure_one, calls, arguments.processes):
        print(f"measured {calls[place][0]}", flush=True)
    return {setting: read(paths[setting]) for setting, _ in wanted}


def measure_one(setting: Setting, count: int, seed: int, path: Path) -> None:
    """Measures and keeps one setting."""
    backbone, real = setting.build(), dataset.load("held-out")
    draw_in_turns(backbone, 10, seed)
    began = time.process_time()
    draw_in_turns(backbone, TIMED, seed)
    per_cpu_second = TIMED / (time.process_time() - began)
    quality = measure_quality(backbone, read_judge(), real, count, seed)
    write_atomically(path, json.dumps({"quality": asdict(quality), "per_cpu_second": per_cpu_second}).encode())


def read(path: Path) -> tuple[ImageQuality, float]:
    told = json.loads(path.read_text())
    fields = told["quality"] | {"by_class": tuple(told["quality"]["by_class"])}
    return ImageQuality(**fields), told["per_cpu_second"]
