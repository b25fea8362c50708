"""The built-in molecule models as backbones: united atoms, sampled with explicit noise.

A latent has a slot per heavy atom: three channels are its position in units of 1.2 Å, the others a scaled one-hot
of its class (an element with its hydrogens), see `representation`. The number of heavy atoms is a *condition*: it
is drawn per sample from the sizes of the training data by the sample's own seed, and stays what it is under
guidance. Slots beyond it are padding: their noise is zero, the denoiser ignores whatever an optimiser writes there,
and they are zero in a finished latent. The same holds for a molecule's centre of mass, so latents and noise are
kept centred.

May import torch, the modules beside it, the samplers and :mod:`pilotwave.training.weights`; RDKit is imported
when a latent is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from pilotwave.backbones.compiling import Compiled, check_compiler
from pilotwave.backbones.molecule.alignment import align_latents
from pilotwave.backbones.molecule.decoding import DecodedMolecule, decode_latent
from pilotwave.backbones.molecule.invariants import MoleculeInvariants
from pilotwave.backbones.molecule.network import MoleculeNetwork, NetworkConfig, with_bfloat16_weights
from pilotwave.backbones.molecule.preconditioning import centre_and_mask
from pilotwave.backbones.molecule.representation import DRUGLIKE, FEWEST_ATOMS, QM9, Chemistry
from pilotwave.backbones.noise import draw_categories, draw_noise_sequence
from pilotwave.backbones.samplers.dpm_solver_sde import dpm_solver_sde_schedule
from pilotwave.backbones.samplers.euler_ancestral import euler_ancestral_schedule, karras_sigmas
from pilotwave.backbones.samplers.schedule import SamplerStep, run_sampler
from pilotwave.config.components import BackboneConfig, path_in_campaign
from pilotwave.errors import CheckpointError, InputError
from pilotwave.protocols import Invariants, NoiseHook, StepHook
from pilotwave.samples import Invalid, MoleculeSample, Sample
from pilotwave.training.weights import Weights, read_weights
from pilotwave.types import Draw

if TYPE_CHECKING:
    from pilotwave.protocols import Backbone

MODEL = "molecule"
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
SIGMA_MIN = 0.015
SCHEDULES = {"dpm-solver-sde": (dpm_solver_sde_schedule, 7.0), "euler-ancestral": (euler_ancestral_schedule, 3.0)}
"""Each sampler with the rho of its noise levels at which it was measured to be best."""
Precision = Literal["float32", "bfloat16"]
Sampler = Literal["dpm-solver-sde", "euler-ancestral"]


class UnitedAtomBackboneConfig(BackboneConfig):
    """What all molecule models are told; a subclass names one of them."""

    packages: ClassVar[tuple[str, ...]] = ("rdkit",)
    extra: ClassVar[str | None] = "molecules"
    media: ClassVar[str] = "molecule"
    condition_fields: ClassVar[frozenset[str]] = frozenset({"atoms"})
    later_fields: ClassVar[frozenset[str]] = frozenset({"compiled"})
    chemistry: ClassVar[Chemistry]
    """Of the built-in weights."""

    checkpoint: str = Field(
        default="builtin",
        description="builtin, or the path of a .safetensors file from `pilotwave train` of this kind.",
    )
    steps: int = Field(default=50, ge=1, le=1000, description="Sampler steps K; each is a pass of the network.")
    sampler: Sampler = Field(
        default="dpm-solver-sde",
        description="Second order, good from 20 steps on; or Euler ancestral, first order.",
    )
    atoms: int | None = Field(
        default=None,
        ge=FEWEST_ATOMS,
        description="Heavy atoms of every molecule; drawn from the sizes of the training data if left out.",
    )
    precision: Precision = Field(
        default="float32", description="Of the network's products; bfloat16 is faster where the CPU or GPU has it."
    )
    compiled: bool = Field(
        default=False,
        description="Use torch.compile: a minute or two to begin, then faster passes, in float32 above all.",
    )

    @field_validator("checkpoint")
    @classmethod
    def _absolute(cls, checkpoint: str, info: ValidationInfo) -> str:
        return checkpoint if checkpoint == "builtin" else str(path_in_campaign(checkpoint, info))

    @model_validator(mode="after")
    def _atoms_fit(self) -> Self:
        most = self.chemistry.slots
        if self.checkpoint == "builtin" and self.atoms is not None and self.atoms > most:
            raise ValueError(f"expected at most {most} atoms of the built-in model, got {self.atoms}")
        return self

    def build(self, device: str = "auto") -> Backbone:
        """Loads the model; see :meth:`BackboneConfig.build`."""
        self.check_dependencies()
        path = builtin_weights(self.kind) if self.checkpoint == "builtin" else Path(self.checkpoint)
        weights = read_weights(path, model=self.kind)
        network, atom_counts = build_network(weights)
        if self.atoms is not None:
            if self.atoms >= len(atom_counts):
                raise InputError(f"backbone.atoms: expected at most {len(atom_counts) - 1}, got {self.atoms}")
            atom_counts = tuple(float(count == self.atoms) for count in range(len(atom_counts)))
        choice = ("" if self.atoms is None else f"-n{self.atoms}") + ("-compiled" if self.compiled else "")
        return MoleculeBackbone(
            network,
            atom_counts,
            name=self.kind,
            steps=self.steps,
            sampler=self.sampler,
            precision=self.precision,
            compiled=self.compiled,
            device=device,
            fingerprint=f"{self.kind}-{weights.fingerprint}-{self.sampler}-k{self.steps}-{self.precision}{choice}",
        )


class MoleculeBackboneConfig(UnitedAtomBackboneConfig):
    """``backbone: {kind: molecule}`` of a campaign file."""

    summary: ClassVar[str] = "small molecules in 3D, up to 9 heavy atoms of C, N, O, F (QM9); built in"
    chemistry: ClassVar[Chemistry] = QM9

    kind: Literal["molecule"]


class DruglikeBackboneConfig(UnitedAtomBackboneConfig):
    """``backbone: {kind: druglike}`` of a campaign file."""

    summary: ClassVar[str] = "drug-like molecules in 3D, up to 27 heavy atoms, also S and Cl (MOSES); built in"
    chemistry: ClassVar[Chemistry] = DRUGLIKE

    kind: Literal["druglike"]


class MoleculeBackbone:
    """A molecule network with its sampler and decoder; implements :class:`pilotwave.protocols.Backbone`.

    Args:
        network: Trained.
        atom_counts: Relative frequency of each number of heavy atoms; index = atoms, length slots + 1.
        steps: Sampler steps K.
        sampler: Which steps.
        precision: Of the network's products.
        compiled: Whether sampling uses torch.compile.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        fingerprint: Names weights and settings.
        name: Of the kind of model.
    """

    def __init__(
        self,
        network: MoleculeNetwork,
        atom_counts: Sequence[float],
        *,
        steps: int = 50,
        sampler: Sampler = "dpm-solver-sde",
        precision: Precision = "float32",
        compiled: bool = False,
        device: str = "auto",
        fingerprint: str = "molecule-unsaved",
        name: str = MODEL,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = name
        self.fingerprint = fingerprint
        self.steps = steps
        self.chemistry = network.config.chemistry
        self.latent_shape: tuple[int, ...] = (self.chemistry.slots, self.chemistry.channels)
        self.condition_size = 1
        self.conditions_are_free = True
        self.invariants: Invariants = MoleculeInvariants(network.config.class_scale)
        self.media = "molecule"
        self.device = device
        self.length_unit = network.config.length_unit
        self.atom_counts = tuple(atom_counts)
        network = network.to(device).eval()
        self.denoiser = with_bfloat16_weights(network) if precision == "bfloat16" else network
        self._chunk = chunk_size(precision, self.chemistry.slots)
        self._compiled: Compiled | None = None
        if compiled:
            check_compiler(device)
            self._compiled = Compiled(self.denoiser.denoise)
        schedule, rho = SCHEDULES[sampler]
        self._schedule = schedule(karras_sigmas(steps, SIGMA_MIN, network.config.largest_noise, rho))

    def draw_noise(self, draws: Sequence[Draw]) -> Tensor:
        """Draws noise of shape (steps + 1, batch, slots, channels), each sample from its own seed.

        It is zero in the padding of each sample and its positions are centred: the model uses nothing else.
        """
        noise = draw_noise_sequence(draws, self.steps, self.latent_shape)
        present = self._present(self._atoms(self.draw_conditions(draws), len(draws)))
        return torch.stack([centre_and_mask(step, present) for step in noise])

    def draw_conditions(self, draws: Sequence[Draw]) -> Tensor:
        """Draws the numbers of heavy atoms, shape (batch, 1), each from its own seed."""
        return draw_categories(draws, self.atom_counts, purpose="atom count")[:, None]

    @torch.no_grad()
    def sample(
        self,
        noise_sequence: Tensor,
        conditions: Tensor,
        hook: StepHook | None = None,
        noise_hook: NoiseHook | None = None,
    ) -> Tensor:
        """Runs the sampler from noise to finished latents of shape (batch, slots, channels).

        A sample's latent is the same, bit for bit, in whatever batch it is drawn (on one machine).

        Raises:
            ValueError: A shape is wrong, or a condition is not a number of atoms.
        """
        batch = noise_sequence.shape[1]
        if noise_sequence.shape != (self.steps + 1, batch, *self.latent_shape):
            expected = (self.steps + 1, "batch", *self.latent_shape)
            raise ValueError(f"expected a noise sequence of shape {expected}, got {tuple(noise_sequence.shape)}")
        atoms = self._atoms(conditions, batch).to(self.device)
        if not batch:
            return torch.zeros(0, *self.latent_shape)

        def denoise(noisy: Tensor, step: SamplerStep) -> Tensor:
            return self._predict_clean(self._compiled or self.denoiser.denoise, noisy, step, atoms)

        noise = noise_sequence.to(self.device, torch.float32)
        finished = run_sampler(denoise, noise, self._schedule, hook, noise_hook)
        return centre_and_mask(finished, self._present(atoms)).cpu()

    def predict_clean(
        self, noisy: Tensor, step_index: int, conditions: Tensor, denoiser: nn.Module | None = None
    ) -> Tensor:
        """See :meth:`pilotwave.protocols.AdaptableBackbone.predict_clean`; centred, zero in the padding."""
        atoms = self._atoms(conditions, len(noisy)).to(self.device)
        network = self.denoiser if denoiser is None else denoiser
        assert isinstance(network, MoleculeNetwork)
        return self._predict_clean(network.denoise, noisy, self._schedule.steps[step_index], atoms)

    def decode(self, latents: Tensor, conditions: Tensor) -> list[Sample | Invalid]:
        """Decodes latents of shape (batch, slots, channels) to molecules with hydrogens, or says why not."""
        atoms = self._atoms(conditions, len(latents)).tolist()
        arrays = latents.detach().cpu().numpy()
        decoded = [
            decode_latent(array, count, self.length_unit, self.chemistry)
            for array, count in zip(arrays, atoms, strict=True)
        ]
        return [to_sample(molecule) for molecule in decoded]

    def align(self, moving: Tensor, fixed: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Turns or reflects each latent onto another one (Kabsch over slots); see `alignment`."""
        atoms = None if conditions is None else self._atoms(conditions, len(fixed)).to(fixed.device)
        return align_latents(moving, fixed, atoms)

    def _predict_clean(
        self, denoise: Callable[..., Tensor], noisy: Tensor, step: SamplerStep, atoms: Tensor
    ) -> Tensor:
        parts = zip(torch.split(noisy, self._chunk), torch.split(atoms, self._chunk), strict=True)
        return torch.cat([self._denoise(denoise, *part, step.noise_level) for part in parts])

    def _denoise(self, denoise: Callable[..., Tensor], noisy: Tensor, atoms: Tensor, sigma: float) -> Tensor:
        """Denoises a chunk of molecules, padded to a whole one."""
        missing = self._chunk - len(noisy)
        if missing:
            noisy = torch.cat([noisy, noisy.new_zeros(missing, *self.latent_shape)])
            atoms = torch.cat([atoms, atoms.new_full((missing,), self.chemistry.slots)])
        levels = torch.full((self._chunk,), sigma, device=noisy.device)
        return denoise(noisy, levels, atoms)[: self._chunk - missing]

    def _atoms(self, conditions: Tensor, batch: int) -> Tensor:
        """Returns the checked numbers of atoms, shape (batch,)."""
        if conditions.shape != (batch, 1):
            raise ValueError(f"expected conditions of shape ({batch}, 1), got {tuple(conditions.shape)}")
        most = self.chemistry.slots
        if batch and not (int(conditions.min()) >= FEWEST_ATOMS and int(conditions.max()) <= most):
            raise ValueError(f"expected {FEWEST_ATOMS} to {most} heavy atoms, got {conditions.flatten().tolist()}")
        return conditions[:, 0].long()

    def _present(self, atoms: Tensor) -> Tensor:
        return torch.arange(self.chemistry.slots, device=atoms.device) < atoms[:, None]


def chunk_size(precision: Precision, slots: int) -> int:
    """Returns how many molecules go through the network together, padded to exactly this many.

    A product of another shape may round otherwise, and a sample must not depend on the batch it was drawn in.
    Matrix units want large chunks; caches, and whoever draws sixteen, want small ones.
    """
    return 64 if precision == "bfloat16" and slots <= QM9.slots else 16


def to_sample(decoded: DecodedMolecule) -> Sample | Invalid:
    """Turns a decoded molecule into the platform's sample, or its reason into `Invalid`."""
    if decoded.molecule is None:
        return Invalid(decoded.reason)
    from rdkit import Chem

    return MoleculeSample(
        Chem.MolToMolBlock(decoded.molecule),
        decoded.smiles,
        decoded.strictly_valid,
        decoded.repaired_hydrogens,
    )


def build_network(weights: Weights) -> tuple[MoleculeNetwork, tuple[float, ...]]:
    """Builds the network of a weight file; returns it with the frequencies of the atom counts.

    Raises:
        CheckpointError: The weights do not fit the network that their header describes.
    """
    config: dict[str, Any] = dict(weights.config)
    try:
        network = MoleculeNetwork(NetworkConfig.model_validate(config["network"]))
        network.load_state_dict(dict(weights.tensors))
        atom_counts = tuple(float(value) for value in config["atom_counts"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"the weights do not fit the molecule network ({reason}); train them again"
        ) from error
    slots = network.config.slots
    if len(atom_counts) != slots + 1:
        raise CheckpointError(f"expected frequencies of 0 to {slots} atoms, got {len(atom_counts)} of them")
    return network.eval().requires_grad_(False), atom_counts


def builtin_weights(model: str) -> Path:
    """Returns where the shipped weights of a molecule model lie."""
    return WEIGHTS_FOLDER / f"{model}.safetensors"


__all__ = [
    "MODEL",
    "DruglikeBackboneConfig",
    "MoleculeBackbone",
    "MoleculeBackboneConfig",
    "UnitedAtomBackboneConfig",
    "build_network",
    "builtin_weights",
    "to_sample",
]
