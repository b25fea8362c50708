"""What a campaign has learned as a folder that needs neither its run directory nor its oracle.

::

    FOLDER/
        campaign.yaml            what is generated: model, algorithm, constraints, objective
        guidance.json            what it was learned from, and which samples are known already
        algorithm.safetensors    the algorithm's tensors
        algorithm.json           the rest of its state
        files/                   weights or data of the model, if the campaign had its own
        MLmodel, ...             so that MLflow loads it, see :mod:`pilotwave.tracking.model_flavor`

There is no pickle in it, so opening a folder from an unknown place runs no code. May import
:mod:`pilotwave.archive`, :mod:`pilotwave.config`, and :mod:`pilotwave.tracking`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch

from pilotwave.archive.state import CampaignState
from pilotwave.config import registry
from pilotwave.config.components import ComponentConfig
from pilotwave.errors import CheckpointError, InputError, StorageError
from pilotwave.execution.guidance_config import GuidanceConfig
from pilotwave.tracking.model_flavor import write_flavor

FORMAT = 1
MODEL_FOLDER = "guidance"
"""Its name in a run directory."""
_CAMPAIGN, _FACTS, _TENSORS, _REST = "campaign.yaml", "guidance.json", "algorithm.safetensors", "algorithm.json"


@dataclass(frozen=True)
class LearnedFacts:
    """What was learned from.

    Attributes:
        name: The campaign's.
        oracle: The oracle's name, ``""`` if it was never started.
        unit: Of its values.
        backbone: Fingerprint of the model, ``""`` likewise.
        queries: How many the campaign had spent.
        answers: How many answers with a value the algorithm knows, those of a warm start among them.
    """

    name: str
    oracle: str = ""
    unit: str = ""
    backbone: str = ""
    queries: int = 0
    answers: int = 0

    @classmethod
    def of(cls, name: str, state: CampaignState, facts: Mapping[str, Any]) -> Self:
        """Reads them from a ledger's state and what backbone and oracle said when the campaign was started."""
        told = {key: str(facts.get(key, "")) for key in ("oracle", "unit", "backbone")}
        return cls(name, **told, queries=state.spent, answers=state.learned)


@dataclass(frozen=True)
class LearnedModel:
    """A model folder, read.

    Attributes:
        config: What is generated.
        facts: What was learned from.
        state: Of the algorithm.
        known: Identities of samples that an oracle was or may be asked about.
    """

    config: GuidanceConfig
    facts: LearnedFacts
    state: dict[str, Any]
    known: frozenset[str]


def is_model(folder: Path) -> bool:
    """Says whether a model was written there."""
    return (folder / _FACTS).is_file()


def write_model(
    folder: Path, config: GuidanceConfig, facts: LearnedFacts, state: Mapping[str, Any], known: Collection[str]
) -> None:
    """Writes a model folder, whole or not at all; one that is there is replaced.

    Args:
        folder: Of ours alone.
        config: What is generated.
        facts: What was learned from.
        state: What ``state_dict`` of the algorithm returned: tensors and JSON-compatible values.
        known: Identities of known samples.

    Raises:
        InputError: The model was given as a Python object, which no file can hold.
        StorageError: The disk is full or read-only.
    """
    if config.backbone.kind == "given":
        raise InputError("the model was given as a Python object, which no folder can hold")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _fill(unfinished, config, facts, state, known)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}; free space") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_model(folder: Path) -> LearnedModel:
    """Reads a model folder.

    Raises:
        CheckpointError: It is damaged, or of a later format.
        RunDirectoryError: Its campaign needs a plug-in that is not installed.
    """
    try:
        told = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise CheckpointError(
                f"{folder}: expected model format {FORMAT}, got {told['format']}; use a newer pilotwave"
            )
        facts = LearnedFacts(**told["facts"])
        known = frozenset(str(identity) for identity in told["known"])
        state = json.loads((folder / _REST).read_text(encoding="utf-8"))
        state |= safetensors.torch.load_file(folder / _TENSORS)
    except CheckpointError:
        raise
    except Exception as error:  # safetensors raises errors of its own on foreign bytes
        line = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{folder}: the model is damaged or incomplete ({line}); export it again") from error
    return LearnedModel(GuidanceConfig.read(folder / _CAMPAIGN), facts, state, known)


def _fill(
    folder: Path, config: GuidanceConfig, facts: LearnedFacts, state: Mapping[str, Any], known: Collection[str]
) -> None:
    (folder / _CAMPAIGN).write_bytes(config.to_yaml(_with_own_files(config.backbone, folder)))
    tensors = {key: value.detach().cpu() for key, value in state.items() if isinstance(value, torch.Tensor)}
    # Clones, because tensors that share memory are refused.
    safetensors.torch.save_file(
        {key: value.contiguous().clone() for key, value in tensors.items()}, folder / _TENSORS
    )
    rest = {key: value for key, value in state.items() if key not in tensors}
    (folder / _REST).write_text(json.dumps(rest, sort_keys=True) + "\n", encoding="utf-8")
    told = {
        "format": FORMAT,
        "pilotwave": version("pilotwave"),
        "facts": asdict(facts),
        "known": sorted(known),
    }
    (folder / _FACTS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    write_flavor(folder, _requirements(config))


def _with_own_files(backbone: ComponentConfig, folder: Path) -> dict[str, Any]:
    """Copies the files that a model is made of; returns its section with the paths of the copies."""
    section = backbone.model_dump(mode="json")
    for name, value in section.items():
        path = Path(value) if isinstance(value, str) and value.startswith(os.sep) else None
        if path is None or not path.exists():
            continue
        copied = Path("files") / f"{name}{path.suffix}"
        (folder / "files").mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, folder / copied)
        else:
            shutil.copyfile(path, folder / copied)
        section[name] = str(copied)
    return section


def _requirements(config: GuidanceConfig) -> list[str]:
    """The distributions that have to be installed: ours with the extras, and those of plug-ins."""
    chosen = [("backbone", config.backbone), ("algorithm", config.algorithm)]
    chosen += [("constraint", item) for item in config.constraints]
    extras: set[str] = set()
    others: set[str] = set()
    for section, component in chosen:
        extras |= {component.extra} if component.extra else set()
        point = registry.choices(section).get(component.kind)
        distribution = None if point is None else point.dist
        if distribution is not None and distribution.name.lower() != "pilotwave":
            others.add(f"{distribution.name}=={distribution.version}")
    named = f"[{','.join(sorted(extras))}]" if extras else ""
    return [f"pilotwave{named}=={version('pilotwave')}", *sorted(others)]


__all__ = ["MODEL_FOLDER", "LearnedFacts", "LearnedModel", "is_model", "read_model", "write_model"]
