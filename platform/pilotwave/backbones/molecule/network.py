"""The denoiser: a transformer over united atoms whose attention is biased by pair features.

Tokens are slots in canonical-SMILES order. Four *pair blocks* look at the distances of the current coordinate
estimate, exchange messages along pairs, move the estimate (equivariantly), and bias the attention of the
layers that follow. The transformer itself is not equivariant; it learns symmetry from random rotations and
reflections during training.

May import: torch, pydantic and the modules beside it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from pilotwave.backbones.molecule import preconditioning
from pilotwave.backbones.molecule.representation import (
    BOND_LABEL_COUNT,
    POSITION_CHANNELS,
    QM9,
    Chemistry,
    UnitedAtom,
)


class NetworkConfig(BaseModel):
    """Shape of the denoiser, its chemistry and units; stored in the header of the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    slots: int = Field(default=QM9.slots, ge=2, le=128, description="Most heavy atoms of a molecule.")
    classes: tuple[str, ...] = Field(
        default=tuple(str(atom) for atom in QM9.classes),
        min_length=1,
        description="United atoms in the order of the latent's class channels: element and hydrogens, as in C3.",
    )

    width: int = Field(default=192, ge=8, le=4096, description="Size of a token; a multiple of the heads.")
    layers: int = Field(default=6, ge=1, le=64, description="Transformer layers.")
    heads: int = Field(default=6, ge=1, le=64, description="Attention heads of each layer.")
    pair_width: int = Field(default=48, ge=4, le=1024, description="Size of a pair feature.")
    pair_blocks: int = Field(default=4, ge=1, le=64, description="Pair blocks, spread evenly over the layers.")
    radial_functions: int = Field(default=24, ge=2, le=512, description="Gaussians that describe a distance.")
    length_unit: float = Field(default=1.2, gt=0, le=10, description="Å per unit of position.")
    class_scale: float = Field(default=0.2, gt=0, le=10, description="Length of a clean class vector.")
    position_spread: float = Field(
        default=1.0, gt=0, le=100, description="Standard deviation of the data's positions, in length units."
    )
    largest_noise: float = Field(
        default=8.0, gt=0, le=1000, description="Noise level at which sampling begins, in length units."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"expected width to be a multiple of heads = {self.heads}, got {self.width}")
        if self.pair_blocks > self.layers:
            raise ValueError(f"expected at most layers = {self.layers} pair blocks, got {self.pair_blocks}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("expected distinct classes")
        self.chemistry  # noqa: B018 - an unknown class is refused here
        return self

    @property
    def chemistry(self) -> Chemistry:
        """Which molecules the network can say."""
        return Chemistry(self.slots, tuple(UnitedAtom.parse(name) for name in self.classes))


@dataclass(frozen=True)
class Prediction:
    """What the denoiser says of a noisy latent.

    Attributes:
        positions: denoised positions, shape (batch, slots, 3), centred, zero in padding.
        class_logits: posterior class logits, shape (batch, slots, classes).
        bond_logits: shape (batch, slots, slots, bond labels), symmetric.
    """

    positions: Tensor
    class_logits: Tensor
    bond_logits: Tensor


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, both modulated by the noise level."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projection = nn.Linear(width, 3 * width, bias=False)
        self.attention_output = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.modulation = nn.Parameter(torch.zeros(6, width))

    def forward(self, tokens: Tensor, bias: Tensor, condition: Tensor) -> Tensor:
        """Runs the layer.

        Args:
            tokens: shape (batch, slots, width).
            bias: added to the attention logits, shape (batch, heads or 1, slots, slots).
            condition: shifts, scales and gates from the noise level, shape (batch, 6, width).
        """
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
            (condition + self.modulation).to(tokens.dtype)[:, :, None].unbind(1)
        )
        batch, slots, width = tokens.shape
        normed = functional.layer_norm(tokens, (width,)) * (1 + scale_1) + shift_1
        query, key, value = (
            self.projection(normed).view(batch, slots, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        mixed = mixed.transpose(1, 2).reshape(batch, slots, width)
        tokens = tokens + (1 + gate_1) * self.attention_output(mixed)
        normed = functional.layer_norm(tokens, (width,)) * (1 + scale_2) + shift_2
        update: Tensor = self.contract(functional.gelu(self.expand(normed), approximate="tanh"))
        return tokens + (1 + gate_2) * update


class PairBlock(nn.Module):
    """Updates pair features from the current geometry, and tokens and coordinates from the pairs."""

    centres: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        pair = config.pair_width
        self.from_distance = nn.Linear(config.radial_functions, pair)
        self.from_token = nn.Linear(config.width, 2 * pair, bias=False)
        self.expand = nn.Linear(pair, 2 * pair)
        self.contract = nn.Linear(2 * pair, pair)
        # attention bias per head, one message gate and one coordinate weight, in a single product
        self.read = nn.Linear(pair, config.heads + 2)
        self.message = nn.Linear(pair, config.width, bias=False)
        centres = torch.linspace(0.0, 6.5, config.radial_functions)
        self.register_buffer("centres", centres, persistent=False)
        self.sharpness = 1.0 / float(centres[1] - centres[0]) ** 2

    def forward(
        self, tokens: Tensor, pairs: Tensor, positions: Tensor, step: Tensor, pair_present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Runs the block.

        Args:
            tokens: shape (batch, slots, width).
            pairs: shape (batch, slots, slots, pair width).
            positions: the current estimate, in model units, shape (batch, slots, 3).
            step: how far an estimate can be off at this noise level, shape (batch, 1, 1).
            pair_present: 1 where both slots hold atoms, shape (batch, slots, slots, 1).

        Returns:
            New tokens, pairs, positions, and an attention bias of shape (batch, heads, slots, slots).
        """
        distance = pair_distances(positions)
        exponent = -self.sharpness * (distance[..., None] - self.centres).square()
        # below -87 exp gives denormal numbers, which processors are fifteen times slower to compute
        radial = torch.exp(exponent.clamp(min=-80.0))
        first, second = self.from_token(functional.layer_norm(tokens, tokens.shape[-1:])).chunk(2, dim=-1)
        pairs = pairs + self.from_distance(radial.to(pairs.dtype)) + first[:, :, None] + second[:, None]
        normed = functional.layer_norm(pairs, pairs.shape[-1:])
        pairs = pairs + self.contract(functional.silu(self.expand(normed)))
        normed = functional.layer_norm(pairs, pairs.shape[-1:])
        bias, gate, weight = self.read(normed).split([self.read.out_features - 2, 1, 1], dim=-1)
        # sums over partners are matrix products: a tensor of all pairs is not written once more for each
        gate = (torch.sigmoid(gate) * pair_present).to(normed.dtype)
        gathered = (gate.transpose(2, 3) @ normed)[:, :, 0]
        tokens = tokens + self.message(gathered) / 3.0
        pull = (weight.float() * pair_present)[..., 0] / (distance + 1.0)
        with torch.autocast(positions.device.type, enabled=False):
            move = pull.sum(2, keepdim=True) * positions - pull @ positions
        return tokens, pairs, positions + step * move, bias.permute(0, 3, 1, 2)


def pair_distances(positions: Tensor) -> Tensor:
    """Returns all distances, shape (batch, slots, slots); differentiable everywhere."""
    difference = positions[:, :, None] - positions[:, None]
    return (difference.square().sum(-1) + 1e-6).sqrt()


class MoleculeNetwork(nn.Module):
    """Predicts clean positions, class logits and bonds from a noisy latent."""

    frequencies: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Linear(POSITION_CHANNELS + len(config.classes), width)
        self.slot = nn.Parameter(torch.randn(config.slots, width) * 0.02)
        self.size = nn.Embedding(config.slots + 1, width)
        self.pair_slot = nn.Parameter(torch.randn(config.slots, config.slots, config.pair_width) * 0.02)
        self.noise = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulate = nn.Linear(width, 6 * width)
        self.layers = nn.ModuleList(Layer(width, config.heads) for _ in range(config.layers))
        self.pair_blocks = nn.ModuleList(PairBlock(config) for _ in range(config.pair_blocks))
        self.position_head = nn.Linear(width, POSITION_CHANNELS)
        self.class_head = nn.Linear(width, len(config.classes))
        self.bond_head = nn.Linear(config.pair_width, BOND_LABEL_COUNT)
        self.register_buffer("frequencies", torch.exp(torch.linspace(-1.5, 3.0, 32)), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Starts the residual branches small and the heads at zero, so training begins at the skip path."""
        depth = (2 * len(self.layers)) ** -0.5
        for layer in self.layers:
            assert isinstance(layer, Layer)
            nn.init.normal_(layer.attention_output.weight, std=0.02 * depth)
            nn.init.normal_(layer.contract.weight, std=0.02 * depth)
        for head in (self.position_head, self.class_head, self.bond_head, self.modulate):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        for block in self.pair_blocks:
            assert isinstance(block, PairBlock)
            nn.init.zeros_(block.read.weight)
            nn.init.zeros_(block.read.bias)

    def forward(self, noisy: Tensor, sigma: Tensor, atoms: Tensor) -> Prediction:
        """Denoises.

        Args:
            noisy: latents, shape (batch, slots, channels); padding and centre of mass are ignored. The trailing
                slots may be left out where no molecule of the batch needs them.
            sigma: noise level, shape (batch,).
            atoms: number of atoms, shape (batch,), integers.
        """
        slots = noisy.shape[1]
        present = torch.arange(slots, device=noisy.device) < atoms[:, None]
        noisy = preconditioning.centre_and_mask(noisy, present)
        level = sigma[:, None, None]
        skip, step, scale = preconditioning.position_scales(level, self.config.position_spread)
        noisy_positions, noisy_classes = noisy[..., :POSITION_CHANNELS], noisy[..., POSITION_CHANNELS:]
        class_scale = preconditioning.class_input_scale(level, self.config.class_scale)
        inputs = torch.cat([noisy_positions * scale, noisy_classes * class_scale], dim=-1)
        embedded = self._embed_noise(sigma)
        tokens = self.embed(
            inputs.to(self.embed.weight.dtype)
        )  # bfloat16 under autocast; so are all tokens and pairs
        tokens = tokens + (self.slot[:slots] + (self.size(atoms) + embedded)[:, None]).to(tokens.dtype)
        condition = self.modulate(embedded).view(len(sigma), 6, -1)
        tokens, pairs, positions = self._trunk(tokens, noisy_positions * skip, step, condition, present)
        positions = positions + step * self.position_head(tokens).float()
        weights = present[..., None].float()
        centre = (positions * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
        likelihood = preconditioning.class_log_likelihood(noisy_classes, level, self.config.class_scale)
        logits = self.class_head(tokens).float() + likelihood
        bonds = self.bond_head(pairs + pairs.transpose(1, 2)).float()
        return Prediction((positions - centre) * weights, logits, bonds)

    def _embed_noise(self, sigma: Tensor) -> Tensor:
        angles = torch.log(sigma)[:, None] * 0.25 * self.frequencies
        embedded: Tensor = self.noise(torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.embed.weight.dtype))
        return embedded

    def _trunk(
        self, tokens: Tensor, positions: Tensor, step: Tensor, condition: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs layers and pair blocks; returns tokens, pair features and the moved positions."""
        slots = present.shape[1]
        pair_present = (present[:, :, None] & present[:, None])[..., None].float()
        absent = torch.zeros(present.shape, device=tokens.device).masked_fill(~present, -1e4)[:, None, None]
        pairs = self.pair_slot[:slots, :slots].to(tokens.dtype).expand(len(tokens), -1, -1, -1)
        before = {
            round(index * len(self.layers) / len(self.pair_blocks)): index for index in range(len(self.pair_blocks))
        }
        bias = absent
        for number, layer in enumerate(self.layers):
            if number in before:
                block = self.pair_blocks[before[number]]
                tokens, pairs, positions, pair_bias = block(tokens, pairs, positions, step, pair_present)
                bias = pair_bias.float() + absent
            tokens = layer(tokens, bias, condition)
        return tokens, pairs, positions

    def denoise(self, noisy: Tensor, sigma: Tensor, atoms: Tensor) -> Tensor:
        """Returns the posterior-mean latent, shape (batch, slots, channels): what a sampler steps towards."""
        prediction = self(noisy, sigma, atoms)
        present = (torch.arange(noisy.shape[1], device=noisy.device) < atoms[:, None])[..., None]
        classes = prediction.class_logits.softmax(dim=-1) * self.config.class_scale * present
        return torch.cat([prediction.positions, classes], dim=-1)


def with_bfloat16_weights(network: MoleculeNetwork) -> MoleculeNetwork:
    """Returns a copy whose products are in bfloat16; distances, positions and logits stay in float32.

    Faster than autocast, which would round every weight again at every pass.
    """
    rounded = copy.deepcopy(network)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16()
    return rounded
