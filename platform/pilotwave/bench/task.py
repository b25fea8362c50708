"""What is compared: tasks, each a model and an objective with a name, and the suites that hold them.

Everything is minimised. A task is built where it runs, from its name alone, so that a run can be sent to another
machine. May import torch for annotations, and pilotwave's protocols, samples and types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from pilotwave.errors import InputError
from pilotwave.protocols import Backbone, Constraint
from pilotwave.samples import Sample
from pilotwave.types import Candidate

if TYPE_CHECKING:
    from torch import Tensor

NOISE, FAILURES = 1.0, 0.2
"""Of the disturbed variants: standard deviations of unguided losses, and the share of questions that fail."""


class Objective(Protocol):
    """Judges finished batches; what an oracle is in a campaign, without its cost."""

    def judge(self, samples: Sequence[Sample], latents: Tensor, conditions: Tensor) -> list[float | None]:
        """Returns a loss per sample, None where there is none.

        Args:
            samples: Decoded.
            latents: (batch, *latent_shape).
            conditions: (batch, condition_size).
        """
        ...

    def close(self) -> None:
        """Ends whatever was started to judge."""
        ...


@dataclass(frozen=True)
class Measured:
    """What a batch is besides its losses.

    Attributes:
        quality: How much its samples are still the model's, by name; the first is the one that tables show. Larger
            is better but for names that end in ``_distance``.
        diversity: How varied they are, by name, larger for more of it; the first is the one that tables show.
    """

    quality: Mapping[str, float]
    diversity: Mapping[str, float]


Measure = Callable[[Sequence[Candidate], Sequence[Candidate]], Measured]
"""``measure(drawn, asked)``: from everything that was drawn and the part of it that was judged."""


@dataclass(frozen=True)
class Task:
    """A model and an objective.

    Attributes:
        name: In commands and files, e.g. ``"digits-class+noise"``.
        suite: Of which suite.
        title: For people.
        media: What the model decodes to.
        group: Names the model: methods are tuned once for each.
        backbone: Builds the model for a device (``"auto"``, ``"cpu"``, ``"cuda"``), or returns the former one.
        objective: Builds the judge.
        measure: Builds the measure of quality and diversity.
        constraints: Builds the checks that a sample passes before it is judged.
        batch_size: How many samples are asked about at once.
        unguided: How many unguided samples say what the model does by itself.
        noise: Of the answers, in standard deviations of unguided losses.
        failures: Share of the questions that get no answer.
        source: The name of the undisturbed task; variants share its unguided samples.
        unseen: Builds the same model on conditions that no run sees, or None.
    """

    name: str
    suite: str
    title: str
    media: str
    group: str
    backbone: Callable[[str], Backbone]
    objective: Callable[[], Objective]
    measure: Callable[[], Measure]
    constraints: Callable[[], Sequence[Constraint]] = field(default=tuple)
    batch_size: int = 32
    unguided: int = 512
    noise: float = 0.0
    failures: float = 0.0
    source: str = ""
    unseen: Callable[[str], Backbone] | None = None

    @property
    def reference_name(self) -> str:
        """The task whose unguided samples are this one's, too."""
        return self.source or self.name

    def disturbed(self) -> tuple[Task, Task]:
        """Returns the variants with noisy answers and with failing ones."""
        source = self.reference_name
        noisy = replace(self, name=f"{self.name}+noise", title=f"{self.title}, noisy", noise=NOISE, source=source)
        failing = replace(
            self, name=f"{self.name}+failures", title=f"{self.title}, failing", failures=FAILURES, source=source
        )
        return noisy, failing


@dataclass(frozen=True)
class Suite:
    """Tasks that are compared together.

    Attributes:
        name: In commands.
        tasks: Compared.
        unsuitable: Kinds of algorithm that cannot work with its models.
        held_out: Other targets and properties on the same models; settings are chosen on these, never compared.
    """

    name: str
    tasks: tuple[Task, ...]
    held_out: tuple[Task, ...]
    unsuitable: frozenset[str] = frozenset()

    def find(self, name: str) -> Task:
        """Returns a task, compared or held out.

        Raises:
            InputError: There is none of this name.
        """
        from pilotwave.config.registry import suggestion

        known = {task.name: task for task in (*self.tasks, *self.held_out)}
        if name not in known:
            names = ", ".join(task.name for task in self.tasks)
            raise InputError(
                f"suite {self.name} has no task {name!r}{suggestion(name, known)}; expected one of {names}"
            )
        return known[name]


__all__ = ["FAILURES", "NOISE", "Measure", "Measured", "Objective", "Suite", "Task"]
