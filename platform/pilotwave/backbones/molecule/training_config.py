"""What a training run of the molecule model is made of, and its learning-rate schedule.

May import pydantic and the network's configuration beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pilotwave.backbones.molecule.network import NetworkConfig
from pilotwave.backbones.molecule.representation import DRUGLIKE

WARM_UP_STEPS = 50
DEFAULT_REAL_SHARE = 0.25
DRUGLIKE_NETWORK = NetworkConfig(
    slots=DRUGLIKE.slots,
    classes=tuple(str(atom) for atom in DRUGLIKE.classes),
    width=256,
    layers=8,
    heads=8,
    pair_width=40,
    radial_functions=20,
    pair_blocks=3,
    position_spread=2.0,
    largest_noise=16.0,
)
"""Wider and deeper than for small molecules, with thinner pairs: with bfloat16 matrix units the tokens cost little;
the pairs, of which there are nine times as many, cost most. The spread is that of the data, 1.94 length units."""


class MoleculeTrainingConfig(BaseModel):
    """What a training run is made of. A run is the same run if only the fields of :data:`FREE` differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: ClassVar[str] = "molecule"
    package_data: ClassVar[str] = "qm9"
    """The model's own data set, which installs as a package."""

    output: Path = Field(description="Folder of the checkpoint and of the finished weights.")
    cache: Path | None = Field(default=None, description="Folder of the prepared data; the user's if left out.")
    data: str = Field(
        default="qm9",
        min_length=1,
        description="qm9, or the path of an SDF (.sdf, .sdf.gz) of your own molecules in 3D.",
    )
    start: str | None = Field(
        default=None,
        description="Weights to begin from, with fresh optimizers: builtin or a .safetensors file; else random.",
    )
    real_share: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="With data of your own: at least this share of every batch is of the model's own data set, so "
        "that a model does not feed on samples alone. 0.25 if weights to begin from are given, else 0.",
    )
    collapse_below: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Stop when the samples' diversity is below this share of the data's on two measurements "
        "running; 0: never.",
    )
    molecules: int = Field(
        default=2_600_000, ge=1, description="Budget: molecules seen in all, repetitions counted."
    )
    pause_after_minutes: float | None = Field(
        default=None, gt=0, description="Stop with a checkpoint after this long; start again to continue."
    )
    batch_size: int = Field(default=384, ge=2, le=65_536, description="Molecules per step, over all processes.")
    processes: int = Field(
        default=2, ge=1, le=64, description="CPU processes that average gradients; one on a GPU."
    )
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads of each process.")
    trunk_learning_rate: float = Field(default=3e-3, gt=0, le=1, description="Muon, on the transformer's matrices.")
    learning_rate: float = Field(default=1.5e-3, gt=0, le=1, description="AdamW, on everything else.")
    decay: float = Field(
        default=0.45, gt=0, le=1, description="Share of the budget over which the rates fall to zero, at the end."
    )
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="Of the averaged weights, the ones kept.")
    log_noise_mean: float = Field(default=-1.0, ge=-5, le=5, description="Mean of ln(noise level) in training.")
    log_noise_spread: float = Field(default=1.3, gt=0, le=5, description="Standard deviation of ln(noise level).")
    size_groups: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Parts of similar molecule size a process's share is cut into: less padding.",
    )
    compiled: bool = Field(
        default=False,
        description="Use torch.compile: minutes to start, then 8% faster steps on two CPU cores, measured. Batches "
        "may be of any shape; with one fixed shape, which is not assumed, it was 23 to 29%.",
    )
    network: NetworkConfig = Field(default=NetworkConfig(), description="The denoiser's shape.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of everything random.")
    device: str = Field(default="auto", description="auto (a GPU if there is one), cpu or cuda.")
    checkpoint_seconds: float = Field(
        default=45.0, ge=0, le=60, description="A killed run loses at most this much."
    )
    report_every: int = Field(default=40_000, ge=1, description="Molecules between two reports.")
    sample_every: int = Field(default=260_000, ge=1, description="Molecules between two measurements of validity.")
    samples: int = Field(default=256, ge=1, le=100_000, description="Samples drawn for such a measurement.")
    sample_steps: int = Field(default=50, ge=1, le=1000, description="Sampler steps of each of these samples.")

    @property
    def own_data(self) -> Path | None:
        """The user's own file, or None if the model's own data set is meant."""
        return None if self.data == self.package_data else Path(self.data).expanduser()

    @property
    def share_of_real(self) -> float:
        """The share of every batch that is mixed in from the model's own data set; 0 if that is the data."""
        if self.own_data is None:
            return 0.0
        if self.real_share is not None:
            return self.real_share
        return DEFAULT_REAL_SHARE if self.start is not None else 0.0

    @model_validator(mode="after")
    def _share_has_a_meaning(self) -> Self:
        if self.real_share is not None and self.own_data is None:
            raise ValueError(f"real_share is for data of your own, but data is {self.data} itself; leave it out")
        return self


class DruglikeTrainingConfig(MoleculeTrainingConfig):
    """The same for drug-like molecules: larger, so fewer of them a step, and noise that is wide enough for them."""

    model: ClassVar[str] = "druglike"
    package_data: ClassVar[str] = "moses"

    data: str = Field(
        default="moses",
        min_length=1,
        description="moses, or the path of an SDF (.sdf, .sdf.gz) of your own molecules in 3D.",
    )
    molecules: int = Field(
        default=2_000_000, ge=1, description="Budget: molecules seen in all, repetitions counted."
    )
    batch_size: int = Field(default=128, ge=2, le=65_536, description="Molecules per step, over all processes.")
    trunk_learning_rate: float = Field(
        default=2.5e-3, gt=0, le=1, description="Muon, on the transformer's matrices."
    )
    learning_rate: float = Field(default=1.2e-3, gt=0, le=1, description="AdamW, on everything else.")
    log_noise_mean: float = Field(default=-0.7, ge=-5, le=5, description="Mean of ln(noise level) in training.")
    log_noise_spread: float = Field(default=1.5, gt=0, le=5, description="Standard deviation of ln(noise level).")
    size_groups: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Parts of similar molecule size a process's share is cut into: less padding.",
    )
    network: NetworkConfig = Field(default=DRUGLIKE_NETWORK, description="The denoiser's shape.")


FREE = frozenset(
    {
        "output", "cache", "molecules", "pause_after_minutes", "threads", "decay", "device",
        "checkpoint_seconds", "report_every", "sample_every", "samples", "sample_steps", "compiled",
        "collapse_below",
    }
)  # fmt: skip
"""Fields that may change when a run is continued: where, how often, and how long. A smaller budget brings the
decay forward."""


def learning_rate_factor(molecules_seen: int, config: MoleculeTrainingConfig) -> float:
    """Share of the highest rate: a short linear rise, constant, then linear to zero at the end of the budget."""
    rise = (molecules_seen / config.batch_size + 1) / WARM_UP_STEPS
    fall = (1 - molecules_seen / config.molecules) / config.decay
    return max(0.0, min(1.0, rise, fall))


def identity(config: MoleculeTrainingConfig) -> dict[str, Any]:
    """Returns the settings that make it this run and no other."""
    return config.model_dump(mode="json", exclude=set(FREE)) | {"real_share": config.share_of_real}


__all__ = [
    "DRUGLIKE_NETWORK",
    "FREE",
    "DruglikeTrainingConfig",
    "MoleculeTrainingConfig",
    "identity",
    "learning_rate_factor",
]
