from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, Field

from pilotwave.config.loading import apply_override
from pilotwave.errors import StorageError
from pilotwave.training.card import (
    DataSource,
    Measured,
    ModelCard,
    changed_settings,
    command_line,
    write_card,
)
from pilotwave.training.history import ComputeLog, TrainingHistory
from pilotwave.training.progress import TrainingProgress


class Network(BaseModel):
    width: int = 8
    classes: tuple[str, ...] = ("C0", "C1")


class Config(BaseModel):
    output: Path
    data: str = "qm9"
    rate: float = 0.1
    network: Network = Network()
    places: list[int] = Field(default_factory=list)


def test_only_what_differs_from_the_defaults_is_told() -> None:
    assert changed_settings(Config(output=Path("x"))) == {}
    config = Config(output=Path("x"), data="my file.sdf", network=Network(width=4), rate=0.1, places=[1])
    changed = changed_settings(config, leave_out={"places"})
    assert changed == {"data": ("my file.sdf", "qm9"), "network.width": (4, 8)}


def test_the_command_gives_the_settings_back() -> None:
    config = Config(output=Path("x"), data="it's, mine.sdf", rate=1e-3, network=Network(classes=("N0",)))
    words = shlex.split(command_line("molecule", changed_settings(config)))
    assert words[:5] == ["pilotwave", "train", "molecule", "--output", "FOLDER"]
    fields: dict[str, object] = {"output": "x"}
    for override in words[6::2]:
        apply_override(fields, override)
    assert Config.model_validate(fields) == config
    assert yaml.safe_load("1.0e-3") == 1e-3


def card(**changes: object) -> ModelCard:
    history = TrainingHistory()
    history.add(TrainingProgress(64, 64, 1.5, 1.25, 10.0, 0.0, {"strict_validity": 0.5}))
    fields: dict[str, object] = {
        "title": "molecule.safetensors",
        "summary": "Draws molecules.",
        "examples": "molecules",
        "what": ["Nine slots."],
        "data": [DataSource("QM9", 120, 6, "Somebody, 2014", "CC0", ["25% of every batch"])],
        "command": "pilotwave train molecule",
        "recipe": ["Muon and AdamW"],
        "settings": {"seed": (1, 0)},
        "progress": "finished",
        "compute": ComputeLog([{"where": "one GPU", "seconds": 60.0, "processor_seconds": 60.0}]),
        "history": history,
        "quality": [Measured("strictly valid", 0.5, (0.25, 0.75), "16 samples")],
        "limits": ["Small molecules only."],
    }
    return ModelCard(**(fields | changes))  # type: ignore[arg-type]


def test_the_card_says_it_all(tmp_path: Path) -> None:
    text = write_card(card(), tmp_path / "run").read_text()
    assert text.startswith("# molecule.safetensors\n")
    for part in (
        "**QM9**: 120 molecules to train on, 6 held out",
        "- Licence: CC0",
        "- 25% of every batch",
        "| seed | 1 | 0 |",
        "one GPU: 1.0 min on the clock",
        "| 64 | 1.5000 | 1.2500 | 0.500 |",
        "| strictly valid | 0.500 | 0.250 to 0.750 | 16 samples |",
        "- Small molecules only.",
    ):
        assert part in text, part
    unmeasured = card(quality=[], settings={}).render()
    assert "Nothing was measured yet." in unmeasured
    assert "differ from the defaults:\n\nnone." in unmeasured


def test_a_card_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not write"):
        write_card(card(), tmp_path / "file")
