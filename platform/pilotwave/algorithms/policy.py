"""What the policy gradients share next to the model: a LoRA adapter, the policy that it makes, its densities.

DDPO, DPOK and D3PO look at a sampler as a policy: at step k the state is x_k, the action x_{k+1}. A step of our
samplers is x_{k+1} = c_k x0 + (terms known before the step) + w_k eps_k, with the base network's prediction x0
of the clean latent, so an adapted network theta, which predicts x0_theta, acts like the base network with other
noise::

    shift_k = c_k / w_k (x0_theta - x0)         edited_k = drawn_k + shift_k

That is how a plan samples: it edits the noise that is about to be injected, and the plain backbone replays the
edited sequence. Up to the same constant, in nats, with squares summed over the components of a latent:

| density of a step | logarithm |
|---|---|
| under theta | -(edited - shift)^2 / 2 |
| under the policy that drew it | -drawn^2 / 2; the seed of the draw gives the noise again |
| under the base model | -edited^2 / 2 |
| KL divergence of theta from the base model | shift^2 / 2 |

The adapter acts where a step injects noise, which is where a policy has a density: the first latent, the last
(noiseless) step and, in multistep samplers, the prediction carried over from the step before are the base model's.

LoRA: Hu et al., "LoRA: low-rank adaptation of large language models", 2021 (arXiv 2106.09685), by ``peft``, on
every linear layer of the network: W + B A with A of ``rank`` rows, and B zero at the start. The papers adapt
the attention of Stable Diffusion; our networks are small and mostly not attention.

May import: numpy, torch, pilotwave's types, protocols and errors; peft inside functions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pilotwave.errors import InputError
from pilotwave.protocols import AdaptableBackbone, Backbone, StepState
from pilotwave.types import Draw, GeneratedBatch

Adapter = Mapping[str, Tensor]
"""The LoRA matrices by the name of the parameter, float32 on the CPU."""


def as_adaptable(backbone: Backbone) -> AdaptableBackbone:
    """Returns the backbone itself if its network can be adapted.

    Raises:
        InputError: It has no network.
    """
    if isinstance(backbone, AdaptableBackbone):
        return backbone
    raise InputError(
        f"algorithm: expected a backbone with a network to adapt (image, molecule), got {backbone.name!r}; "
        "choose another backbone, or an algorithm that does not train one"
    )


def adapted_copy(denoiser: nn.Module, rank: int) -> nn.Module:
    """Returns a copy of a network with a LoRA adapter; the copy shares the weights, the network is not touched.

    Only the adapter requires gradients. Its matrices are float32 whatever the network's precision, and hold nothing
    of meaning before :func:`write_adapter`.
    """
    import peft

    shared: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in denoiser.parameters()
    }
    shared.update((id(buffer), buffer) for buffer in denoiser.buffers())
    twin = copy.deepcopy(denoiser, shared)
    layers = [name for name, module in twin.named_modules() if isinstance(module, nn.Linear)]
    with torch.random.fork_rng(devices=[]):  # peft draws first values that are overwritten
        twin = peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), twin)
    for matrix in adapter_parameters(twin).values():
        matrix.data = matrix.data.float()
    return twin.eval()


def adapter_parameters(adapted: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the matrices of an adapted network's adapter by name, in the order of the names."""
    return {name: matrix for name, matrix in sorted(adapted.named_parameters()) if matrix.requires_grad}


def initial_adapter(adapted: nn.Module, seed: int) -> dict[str, Tensor]:
    """Draws a fresh adapter for an adapted network: A uniform with variance 1 / (3 inputs), B zero.

    The policy of a fresh adapter is the base model, exactly.
    """
    adapter = {}
    for place, (name, matrix) in enumerate(adapter_parameters(adapted).items()):
        adapter[name] = torch.zeros(matrix.shape)
        if "lora_A" in name:
            random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(place,))))
            bound = matrix.shape[1] ** -0.5
            adapter[name] = torch.from_numpy(random.uniform(-bound, bound, tuple(matrix.shape))).float()
    return adapter


@torch.no_grad()
def write_adapter(adapted: nn.Module, adapter: Adapter) -> None:
    """Puts matrices into an adapted network.

    Raises:
        ValueError: They are those of another network, or of another rank.
    """
    parameters = adapter_parameters(adapted)
    if {name: tuple(matrix.shape) for name, matrix in parameters.items()} != {
        name: tuple(matrix.shape) for name, matrix in adapter.items()
    }:
        raise ValueError("expected an adapter of this network and rank; the state is of another model or rank")
    for name, matrix in parameters.items():
        matrix.copy_(adapter[name])


def read_adapter(adapted: nn.Module) -> dict[str, Tensor]:
    """Returns the matrices of an adapted network, copied to the CPU."""
    return {name: matrix.detach().cpu().clone() for name, matrix in adapter_parameters(adapted).items()}


@dataclass(frozen=True)
class PolicyPlan:
    """Samples from a policy, as the base model with edited noise.

    Attributes:
        rank: Of the adapter.
        adapter: None for the base model itself, which costs one pass a sample; else it is two.
    """

    rank: int
    adapter: Adapter | None

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        noise, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        if self.adapter is None:
            return GeneratedBatch(noise, backbone.sample(noise, conditions), conditions, passes=1)
        model = as_adaptable(backbone)
        adapted = adapted_copy(model.denoiser, self.rank)
        write_adapter(adapted, self.adapter)
        edited = noise.clone()

        def edit(state: StepState, clean: Tensor, drawn: Tensor) -> Tensor:
            predicted = model.predict_clean(state.noisy, state.index, conditions, adapted)
            shift = state.clean_weight / state.noise_weight * (predicted - clean)
            # Padding stays zero, and a sample whose prediction is not finite is left to the base model.
            moves = (drawn != 0) & _per_sample(shift.flatten(1).isfinite().all(1), shift)
            moved = torch.where(moves, drawn + shift, drawn)
            edited[state.index + 1] = moved.cpu()
            return moved

        latents = backbone.sample(noise, conditions, noise_hook=edit)
        return GeneratedBatch(edited, latents, conditions, passes=2)


@dataclass(frozen=True)
class Transition:
    """One step of a batch of trajectories, replayed by the base model.

    Attributes:
        index: The step.
        noisy: x_k, (batch, *latent_shape).
        clean: The base model's prediction, of the same shape.
        edited: The noise with which the base model reached x_{k+1}.
        drawn: The noise of the policy that drew the trajectory.
        gain: c_k / w_k.
    """

    index: int
    noisy: Tensor
    clean: Tensor
    edited: Tensor
    drawn: Tensor
    gain: float

    def densities(self, model: AdaptableBackbone, conditions: Tensor, adapted: nn.Module) -> StepDensities:
        """Returns the densities under an adapted network, differentiable in its adapter."""
        predicted = model.predict_clean(self.noisy, self.index, conditions, adapted)
        shift = torch.where(self.drawn != 0, self.gain * (predicted - self.clean), torch.zeros_like(predicted))
        return StepDensities(*(part.flatten(1).double() for part in (self.drawn, self.edited, shift)))


@dataclass(frozen=True)
class StepDensities:
    """The densities of one step of a batch; see the table of the module. All float64, logarithms in nats.

    Attributes:
        drawn: The noise of the policy that drew the trajectories, (batch, dim).
        edited: The noise with which the base model makes the same step, (batch, dim).
        shift: What theta adds to noise, (batch, dim); only this depends on theta.
    """

    drawn: Tensor
    edited: Tensor
    shift: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """Log pi_theta - log pi_old at each action, (batch,); exactly 0 where theta drew it without a shift."""
        noise = self.edited - self.shift
        return 0.5 * ((self.drawn - noise) * (self.drawn + noise)).sum(1)

    @property
    def log_ratio_to_base(self) -> Tensor:
        """Log pi_theta - log pi_base at each action, (batch,)."""
        return (self.shift * (self.edited - 0.5 * self.shift)).sum(1)

    @property
    def divergence(self) -> Tensor:
        """KL(pi_theta || pi_base) at each state, (batch,)."""
        return 0.5 * self.shift.square().sum(1)


def replay(model: AdaptableBackbone, noise: Tensor, drawn: Tensor, conditions: Tensor) -> list[Transition]:
    """Runs the base model along trajectories and keeps every step that injects noise.

    Args:
        model: The backbone.
        noise: What was recorded with the samples, (steps + 1, batch, *latent_shape).
        drawn: As their seeds gave it, of the same shape.
        conditions: (batch, condition_size).
    """
    transitions: list[Transition] = []

    def keep(state: StepState, clean: Tensor, edited: Tensor) -> Tensor:
        fresh = drawn[state.index + 1].to(edited.device)
        gain = state.clean_weight / state.noise_weight
        transitions.append(Transition(state.index, state.noisy, clean, edited, fresh, gain))
        return edited

    model.sample(noise, conditions, noise_hook=keep)
    return transitions


def _per_sample(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *[1] * (like.ndim - 1))


__all__ = [
    "Adapter",
    "PolicyPlan",
    "StepDensities",
    "Transition",
    "adapted_copy",
    "adapter_parameters",
    "as_adaptable",
    "initial_adapter",
    "read_adapter",
    "replay",
    "write_adapter",
]
