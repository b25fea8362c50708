"""Best of N: unguided samples, the baseline of every comparison.

May import: torch, pydantic, pilotwave's types, protocols and config.components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pilotwave.config.components import AlgorithmConfig, AlgorithmSetting
from pilotwave.protocols import Backbone
from pilotwave.types import Draw, GeneratedBatch, Observation, Proposal


@dataclass(frozen=True)
class RandomPlan:
    """Runs the sampler once on fresh noise."""

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        noise_sequence, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        return GeneratedBatch(noise_sequence, backbone.sample(noise_sequence, conditions), conditions, passes=1)


class RandomSearch:
    """Asks for unguided samples and learns nothing."""

    name = "random"

    def __init__(self) -> None:
        self._rounds = 0

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        self._rounds += 1
        return Proposal(self._rounds - 1, count, RandomPlan())

    def tell(self, observations: Sequence[Observation]) -> None:
        """Ignores all answers; what was best is in the ledger."""

    def state_dict(self) -> dict[str, Any]:
        return {"algorithm": self.name, "rounds": self._rounds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("algorithm") != self.name:
            raise ValueError(f"expected a state of algorithm {self.name!r}, got {state.get('algorithm')!r}")
        self._rounds = int(state["rounds"])


class RandomSearchConfig(AlgorithmConfig):
    """Choice ``random``."""

    summary: ClassVar[str] = "Unguided samples: best of N, the baseline of every comparison."

    kind: Literal["random"]

    def build(self, setting: AlgorithmSetting) -> RandomSearch:
        return RandomSearch()


__all__ = ["RandomPlan", "RandomSearch", "RandomSearchConfig"]
