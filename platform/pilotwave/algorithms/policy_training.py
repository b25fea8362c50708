"""What the policy gradients share where answers are learnt: memory, advantages, and steps of AdamW on the adapter.

A call of ``ask`` first trains on the answers that were told before it and not trained on yet, whatever proposal
they are of, as soon as there are half a batch of them (a few stragglers would weigh as much as a whole batch:
AdamW does not see how large a gradient is). Every answer is trained on once, against the noise that it was
drawn with, so late answers are weighed by importance. What is kept of them afterwards is the loss.

Samples are dealt out to ``updates`` mini-batches, each a step of AdamW on the mean over its samples and sampler
steps. Advantages follow the reference program of DDPO: a loss is standardised among the latest 16 of the same
condition, or while these are fewer among all; ours is that the latest answers fill up a batch of fewer than 16.

A ratio of densities is raised to the power 1 / 16,384 before it is clipped, and the objective multiplied by
16,384: the reference program of DDPO averages a log-probability over the components of a latent, which are 16,384
in Stable Diffusion, and its clip range of 1e-4 then means 1.6 nats a step. Stated so, it means the same for any
latent.

The learning rates of the reference programs, 1e-5 to 1e-4, are for a network of another size. Ours are from a small
grid on two tasks outside the image suite, the brightness of the built-in image model and that of its top half over
the lower: 6 steps, 12 rounds of 16, one seed, mean of the last three rounds in standard deviations of unguided
samples (lower is better), first and second task:

| learning rate | ddpo, 2 updates | dpok, 5 updates | d3po, 2 updates |
|---|---|---|---|
| 0.001 | 0.0 / - | - | - |
| 0.003 | -0.4 / -0.1 | - | - |
| 0.01 | -1.2 / -0.6 | -3.3 / -0.7 | -1.9 / -0.3 |
| 0.03 | -1.9 / -1.4 | -5.3 / -0.9 | -7.3 / -0.8 |

The noise of the last samples at 0.03 had 1.1 to 1.4 times its variance, at 0.01 at most 1.2 times. At 0.03 d3po's
samples had collapsed on the first task (a tenth of the unguided distance between samples), and on a network of
random weights dpok was thrown far to the wrong side, so these two are at 0.01 by default, and ddpo at 0.03.

On a GPU the sums of a gradient may be added up in another order, so only on a CPU does a restored algorithm go
on bit for bit.

May import: numpy, torch, pydantic, pilotwave's types, protocols, errors, config.components, answers and policy.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pilotwave.algorithms.answers import Answers, standardise
from pilotwave.algorithms.policy import (
    PolicyPlan,
    StepDensities,
    adapted_copy,
    adapter_parameters,
    as_adaptable,
    initial_adapter,
    read_adapter,
    replay,
    write_adapter,
)
from pilotwave.config.components import AlgorithmConfig, AlgorithmSetting
from pilotwave.errors import InputError
from pilotwave.protocols import AdaptableBackbone
from pilotwave.types import Draw, Observation, Proposal

RATIO_SCALE = 16_384.0
"""Components of a latent of Stable Diffusion: the reference programs divide a log-probability by them."""
ENOUGH_LOSSES = 16
"""Losses of one condition from which on they are standardised by themselves, and how many of them are used."""
WEIGHT_DECAY = 1e-4
TOGETHER = 64
"""Samples that go through the network together in training; bounds the memory, not the mini-batch."""


class PolicyConfig(AlgorithmConfig):
    """What all policy gradients are told; a subclass is one of them."""

    packages: ClassVar[tuple[str, ...]] = ("peft",)
    extra: ClassVar[str | None] = "algorithms"

    rank: int = Field(4, ge=1, le=256, description="Of the LoRA adapter.")
    learning_rate: float = Field(0.01, gt=0, le=1, description="Of AdamW.")
    updates: int = Field(2, ge=1, le=1000, description="Steps of AdamW in one pass over a batch of answers.")
    epochs: int = Field(1, ge=1, le=1000, description="Passes over a batch of answers.")
    advantage_clip: float = Field(5.0, gt=0, description="Largest size of a standardised loss.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of a gradient.")


class Learner:
    """A policy in training: the adapted network and its optimizer.

    Args:
        model: The backbone.
        config: Rank, learning rate and gradient clip.
        seed: Of the first adapter.
    """

    def __init__(self, model: AdaptableBackbone, config: PolicyConfig, seed: int) -> None:
        self.model = model
        self.adapted = adapted_copy(model.denoiser, config.rank)
        write_adapter(self.adapted, initial_adapter(self.adapted, seed))
        self.parameters = adapter_parameters(self.adapted)
        self.steps = 0
        self._clip = config.gradient_clip
        matrices = list(self.parameters.values())
        self._optimizer = torch.optim.AdamW(matrices, lr=config.learning_rate, weight_decay=WEIGHT_DECAY)

    def zero_gradients(self) -> None:
        """Forgets the gradients."""
        self._optimizer.zero_grad()

    def step(self) -> None:
        """Follows the gradients, unless one of them is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._clip)
        if norm.isfinite():
            self._optimizer.step()
            self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Returns a flat dict; empty before the first step, when a fresh learner is the same."""
        if not self.steps:
            return {}
        state: dict[str, Any] = {"adam_steps": self.steps}
        for name, matrix in read_adapter(self.adapted).items():
            moments = self._optimizer.state[self.parameters[name]]
            state[f"adapter.{name}"] = matrix
            state[f"first_moment.{name}"] = moments["exp_avg"].cpu().clone()
            state[f"second_moment.{name}"] = moments["exp_avg_sq"].cpu().clone()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned, into a fresh learner.

        Raises:
            ValueError: The state is of another network or rank.
        """
        if "adam_steps" not in state:
            return
        prefix = "adapter."
        adapter = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        write_adapter(self.adapted, adapter)
        self.steps = int(state["adam_steps"])
        for name, matrix in self.parameters.items():
            self._optimizer.state[matrix] = {
                "step": torch.tensor(float(self.steps)),
                "exp_avg": state[f"first_moment.{name}"].to(matrix.device, copy=True),
                "exp_avg_sq": state[f"second_moment.{name}"].to(matrix.device, copy=True),
            }


class PolicyGradient(abc.ABC):
    """A policy gradient by ask and tell; a subclass says what is minimised.

    Its copy of the backbone is loaded at once, so that one without a network is refused before anything is paid.

    Args:
        setting: Of the campaign.
        config: Checked.

    Raises:
        InputError: The backbone cannot be adapted, or has no step that injects noise.
    """

    name: str

    def __init__(self, setting: AlgorithmSetting, config: PolicyConfig) -> None:
        if setting.build_backbone is None:
            raise InputError(f"algorithm: {self.name} trains a copy of the backbone, which cannot be loaded here")
        if setting.steps < 2:
            raise InputError(f"algorithm: {self.name} needs a sampler of at least 2 steps, got {setting.steps}")
        self.config = config
        self._setting = setting
        self._model = as_adaptable(setting.build_backbone())
        self._reset()

    @abc.abstractmethod
    def step_loss(self, densities: StepDensities, advantages: Tensor) -> Tensor:
        """Returns what is minimised at one sampler step of a mini-batch, a scalar that depends on the shift.

        Args:
            densities: Of the step, for samples in the order of ``advantages``.
            advantages: Higher is better, float64 (batch,).
        """

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        if len(self._waiting) >= max(1, self._setting.batch_size // 2):
            self._train()
        self._rounds += 1
        adapter = read_adapter(self._learner.adapted) if self._learner.steps else None
        return Proposal(self._rounds - 1, count, PolicyPlan(self.config.rank, adapter))

    def tell(self, observations: Sequence[Observation]) -> None:
        # Those of other campaigns (negative proposals) are left out: their noise was not drawn by a policy of ours.
        own = [item for item in observations if item.candidate.proposal >= 0]
        self._waiting.add([item for item in own if item.candidate.query_id not in self._trained])

    def state_dict(self) -> dict[str, Any]:
        return {
            "algorithm": self.name,
            "rounds": self._rounds,
            "trainings": self._trainings,
            **self._waiting.state_dict(),
            **self._trained.state_dict(),
            **self._learner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("algorithm") != self.name:
            raise ValueError(f"expected a state of algorithm {self.name!r}, got {state.get('algorithm')!r}")
        self._reset()
        self._rounds = int(state["rounds"])
        self._trainings = int(state["trainings"])
        self._waiting.load_state_dict(state)
        self._trained = PastLosses.restored(state)
        self._learner.load_state_dict(state)

    def _reset(self) -> None:
        self._rounds = 0
        self._trainings = 0
        self._trained = PastLosses()
        self._learner = Learner(self._model, self.config, self._setting.seed)
        self._forget_waiting()

    def _forget_waiting(self) -> None:
        self._waiting = Answers(self._setting.latent_shape, self._setting.steps)

    def _train(self) -> None:
        answers = self._waiting
        scores = self._trained.advantages(answers.losses, answers.conditions)
        scores = scores.clamp(-self.config.advantage_clip, self.config.advantage_clip)
        key = np.random.SeedSequence(self._setting.seed, spawn_key=(2**31 + self._trainings,))
        random = np.random.Generator(np.random.PCG64(key))
        if scores.any():  # equal losses teach nothing
            for _ in range(self.config.epochs):
                shuffled = random.permutation(len(answers))
                for rows in np.array_split(shuffled, min(self.config.updates, len(answers))):
                    self._update(answers, torch.from_numpy(rows), scores)
        self._trained.add(answers)
        self._trainings += 1
        self._forget_waiting()

    def _update(self, answers: Answers, rows: Tensor, scores: Tensor) -> None:
        """Makes one step on some of the answers."""
        model, learner = self._model, self._learner
        draws = [Draw(answers.ids[row], int(answers.seeds[row])) for row in rows]
        noise, drawn = answers.noise_sequences[rows].transpose(0, 1), model.draw_noise(draws)
        conditions, scores = answers.conditions[rows], scores[rows].to(model.device)
        learner.zero_gradients()
        for part in torch.split(torch.arange(len(rows)), TOGETHER):
            transitions = replay(model, noise[:, part], drawn[:, part], conditions[part])
            for transition in transitions:
                densities = transition.densities(model, conditions[part], learner.adapted)
                loss = self.step_loss(densities, scores[part])
                (loss * (len(part) / (len(rows) * len(transitions)))).backward()  # type: ignore[no-untyped-call]
        learner.step()


@dataclasses.dataclass
class PastLosses:
    """The losses of answers that were trained on, by id."""

    by_id: dict[str, tuple[int, float, tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    """From an id to its proposal, loss and condition, ordered by proposal and id."""

    def __contains__(self, query_id: str) -> bool:
        return query_id in self.by_id

    def add(self, answers: Answers) -> None:
        """Takes answers in."""
        rows = zip(
            answers.ids,
            answers.proposals.tolist(),
            answers.losses.tolist(),
            answers.conditions.tolist(),
            strict=True,
        )
        self.by_id.update({name: (proposal, loss, tuple(condition)) for name, proposal, loss, condition in rows})
        self.by_id = dict(sorted(self.by_id.items(), key=lambda item: (item[1][0], item[0])))

    def advantages(self, losses: Tensor, conditions: Tensor) -> Tensor:
        """Returns how good new answers are: minus the standardised loss, float64 (batch,).

        Args:
            losses: (batch,).
            conditions: (batch, condition_size).
        """
        result = -standardise(_filled_up(losses, [loss for _, loss, _ in self.by_id.values()]))[: len(losses)]
        keys = [tuple(condition) for condition in conditions.tolist()]
        for key in sorted(set(keys)):
            same = torch.tensor([other == key for other in keys])
            peers = _filled_up(losses[same], [loss for _, loss, other in self.by_id.values() if other == key])
            if len(peers) >= ENOUGH_LOSSES:
                result[same] = -standardise(peers)[: int(same.sum())]
        return result

    def state_dict(self) -> dict[str, Any]:
        """Returns a flat dict of tensors and JSON-compatible values; its keys begin with ``trained_``."""
        proposals, losses, conditions = zip(*self.by_id.values(), strict=True) if self.by_id else ((), (), ())
        return {
            "trained_ids": list(self.by_id),
            "trained_proposals": torch.tensor(proposals, dtype=torch.int64),
            "trained_losses": torch.tensor(losses, dtype=torch.float64),
            "trained_conditions": torch.tensor(conditions, dtype=torch.int64),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> PastLosses:
        """Restores what :meth:`state_dict` returned."""
        columns = (state[f"trained_{name}"].tolist() for name in ("proposals", "losses", "conditions"))
        rows = zip(state["trained_ids"], *columns, strict=True)
        return cls({name: (proposal, loss, tuple(condition)) for name, proposal, loss, condition in rows})


def tempered(log_ratio: Tensor) -> Tensor:
    """Returns a ratio of densities to the power 1 / 16,384; see the module."""
    return (log_ratio / RATIO_SCALE).exp()


def _filled_up(losses: Tensor, earlier: Sequence[float]) -> Tensor:
    """Returns losses with the latest earlier ones behind them, so many that they are enough if they can be."""
    missing = min(len(earlier), max(0, ENOUGH_LOSSES - len(losses)))
    return torch.cat([losses, torch.tensor(earlier[len(earlier) - missing :], dtype=torch.float64)])


__all__ = ["RATIO_SCALE", "Learner", "PastLosses", "PolicyConfig", "PolicyGradient", "tempered"]
