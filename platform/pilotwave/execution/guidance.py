"""More samples from what a campaign has learned, with no oracle: of a run directory, or of a model folder.

The algorithm is rebuilt as a resumed campaign has it, asked for one plan, and the plan is run as often as it takes.
Nothing is written, so a driver may be at work in the run directory. May import the core.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.config.components import AlgorithmSetting
from pilotwave.errors import CheckpointError, InputError, RunDirectoryError
from pilotwave.execution.generated import GeneratedSample, GeneratedSamples
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.guidance_config import GuidanceConfig
from pilotwave.execution.learned_model import LearnedFacts, is_model, read_model
from pilotwave.execution.replay import replay
from pilotwave.execution.workers import GenerationRequest
from pilotwave.protocols import Algorithm, Backbone, PredictingAlgorithm
from pilotwave.types import Candidate, Draw, Proposal

LOOKED_AT = 8
"""So many samples are compared with the model's own, to see whether guidance makes a difference."""
Observe = Callable[[int, int], None]
"""``observe(found, wanted)``, after every round of draws."""


class Guidance:
    """A model, an algorithm that learned to steer it, and what is known already.

    Attributes:
        config: What is generated.
        facts: What was learned from.
        media: The kind of sample.
    """

    def __init__(
        self,
        config: GuidanceConfig,
        facts: LearnedFacts,
        backbone: Backbone,
        algorithm: Algorithm,
        known: frozenset[str],
        asked_conditions: bool = False,
    ) -> None:
        self.config = config
        self.facts = facts
        self.media = backbone.media
        self._backbone = backbone
        self._algorithm = algorithm
        self._known = known
        self._asked_conditions = asked_conditions
        # Asked once: some algorithms go further with every proposal, and the same call shall give the same samples.
        self._plan = algorithm.ask(config.batch_size).plan

    @classmethod
    def open(
        cls,
        place: Path,
        *,
        conditions: Mapping[str, Any] | None = None,
        device: str | None = None,
        config: GuidanceConfig | None = None,
    ) -> Guidance:
        """Rebuilds what was learned.

        Args:
            place: A run directory, or a model folder, see :mod:`pilotwave.execution.learned_model`.
            conditions: Values for the model's fields that say which conditions are drawn, e.g.
                ``{"classes": ["sneaker"]}``; the campaign's by default.
            device: Of the model; the campaign's by default.
            config: Of the campaign, where its file cannot hold it (objects given in Python).

        Raises:
            InputError: There is neither, or no such condition or device.
            CheckpointError: The model is another one than the campaign's.
            StorageError: The ledger cannot be read.
        """
        if is_model(place):
            return _of_model(place, conditions or {}, device)
        run = RunDirectory(place)
        if not run.exists():
            raise RunDirectoryError(
                f"{place}: no run and no model here; give the directory of a run, e.g. runs/demo, or of a model"
            )
        return _of_run(run, config or GuidanceConfig.read(run.campaign_file), conditions or {}, device)

    def generate(
        self,
        count: int,
        *,
        seed: int = 0,
        constraints: bool = True,
        batch_size: int | None = None,
        observe: Observe | None = None,
    ) -> GeneratedSamples:
        """Makes samples; the same arguments give the same ones.

        Invalid and vetoed samples and repeats of known ones are drawn again, at most so often, on average, as the
        campaign's ``generation.redraws`` says.

        Args:
            count: How many.
            seed: Of all randomness; another one gives other samples, none of them the campaign's.
            constraints: Whether the campaign's constraints hold.
            batch_size: Made together; as many as the campaign proposed at once by default.
            observe: Told of progress.

        Raises:
            InputError: ``count`` is below 1.
        """
        if count < 1:
            raise InputError(f"expected 1 or more samples, got {count}")
        size = batch_size or self.config.batch_size
        checks = [item.build() for item in self.config.constraints] if constraints else []
        left_out: Counter[str] = Counter()
        found: list[Candidate] = []
        known, drawn, rounds = set(self._known), 0, 0
        redraws = self.config.generation.redraws
        first: Sequence[Candidate] = ()
        while len(found) < count and drawn <= count * redraws:
            proposal = Proposal(rounds, min(size, count - len(found)), self._plan)
            request = GenerationRequest(proposal, self._root(seed), redraws, frozenset(known))
            made = generate_candidates(self._backbone, checks, request).candidates
            first = first or made[:LOOKED_AT]
            reasons = [self._left_out(candidate) for candidate in made]
            taken = [candidate for candidate, reason in zip(made, reasons, strict=True) if reason is None]
            left_out.update(reason for reason in reasons if reason is not None)
            known.update(candidate.sample.identity() for candidate in taken if candidate.sample is not None)
            found, drawn, rounds = found + taken, drawn + len(made), rounds + 1
            if observe is not None:
                observe(len(found), count)
            if not taken:
                break
        guided = self._is_guided(first)
        notes = self._notes(guided, count, len(found), left_out)
        return GeneratedSamples(
            self._described(found), count, drawn, dict(left_out.most_common()), self.facts.unit, guided, notes
        )

    def _root(self, seed: int) -> int:
        """What the draws of a seed are seeded by: other ones than any of the campaign's."""
        text = f"pilotwave/generate/{self.config.seed}/{seed}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1

    def _left_out(self, candidate: Candidate) -> str | None:
        """Why a sample is not taken, in one word, or None."""
        if candidate.infeasible is not None:
            return candidate.infeasible.partition(":")[0]
        if self._asked_conditions:
            own = self._backbone.draw_conditions([Draw(candidate.query_id, candidate.seed)])[0]
            if not torch.equal(own, candidate.condition):
                return "condition"  # the algorithm chose another one
        return None

    def _is_guided(self, candidates: Sequence[Candidate]) -> bool:
        """Whether these came from other noise, or under other conditions, than the model itself draws for them."""
        for candidate in candidates:
            draw = [Draw(candidate.query_id, candidate.seed)]
            noise, condition = self._backbone.draw_noise(draw)[:, 0], self._backbone.draw_conditions(draw)[0]
            if not (torch.equal(noise, candidate.noise_sequence) and torch.equal(condition, candidate.condition)):
                return True
        return False

    def _notes(self, guided: bool, wanted: int, found: int, left_out: Mapping[str, int]) -> tuple[str, ...]:
        notes = []
        if not self.facts.answers:
            notes.append("nothing was answered yet, so these samples are unguided")
        elif not guided:
            notes.append(f"{self._algorithm.name} does not steer these samples (yet), so they are unguided")
        if 0 < found < wanted:
            why = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
            notes.append(f"only {found} of {wanted} samples are new and valid ({why}); another --seed gives others")
        return tuple(notes)

    def _described(self, found: Sequence[Candidate]) -> tuple[GeneratedSample, ...]:
        predicted = self._predicted(found)
        return tuple(
            GeneratedSample(
                index=index,
                seed=candidate.seed,
                sample=candidate.sample,
                condition=tuple(candidate.condition.tolist()),
                predicted=value,
                properties=dict(candidate.properties),
            )
            for index, (candidate, value) in enumerate(zip(found, predicted, strict=True))
            if candidate.sample is not None  # each of them has one: it was judged
        )

    def _predicted(self, found: Sequence[Candidate]) -> list[float | None]:
        """What the surrogate expects, in the oracle's sign."""
        losses = None
        if found and isinstance(self._algorithm, PredictingAlgorithm):
            latents = torch.stack([candidate.latent for candidate in found])
            conditions = torch.stack([candidate.condition for candidate in found])
            losses = self._algorithm.predict(self._backbone, latents, conditions)
        if losses is None:
            return [None] * len(found)
        sign = 1.0 if self.config.objective.direction == "minimize" else -1.0
        return [sign * loss if math.isfinite(loss) else None for loss in losses.tolist()]


@dataclass(frozen=True)
class _Built:
    """A model with its conditions, and an algorithm for it that was told nothing."""

    backbone: Backbone
    algorithm: Algorithm


def _of_run(
    run: RunDirectory, config: GuidanceConfig, conditions: Mapping[str, Any], device: str | None
) -> Guidance:
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        events = list(ledger.events())
        state = CampaignState.of(events)
        started = [event.record.get("facts", {}) for event in events if event.kind is EventKind.STARTED]
        facts = LearnedFacts.of(config.name, state, started[-1] if started else {})
        built = _build(config, facts, conditions, device, str(run.path))
        replay(run, ledger, state, config.objective, built.algorithm)
        known = frozenset(ledger.feasible_identities())
    return Guidance(
        config.under(conditions), facts, built.backbone, built.algorithm, known, asked_conditions=bool(conditions)
    )


def _of_model(folder: Path, conditions: Mapping[str, Any], device: str | None) -> Guidance:
    model = read_model(folder)
    built = _build(model.config, model.facts, conditions, device, str(folder))
    try:
        built.algorithm.load_state_dict(model.state)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: the state does not fit the algorithm: {error}") from error
    return Guidance(
        model.config.under(conditions),
        model.facts,
        built.backbone,
        built.algorithm,
        model.known,
        asked_conditions=bool(conditions),
    )


def _build(
    config: GuidanceConfig, facts: LearnedFacts, conditions: Mapping[str, Any], device: str | None, place: str
) -> _Built:
    """Loads the model, makes sure that it is the campaign's, and builds the algorithm with an empty memory."""
    chosen = config.under(conditions)
    for component in (config.backbone, config.algorithm, *config.constraints):
        component.check_dependencies()
    device = device or config.device
    torch.set_num_threads(config.threads)
    backbone = config.backbone.build(device)
    if facts.backbone and backbone.fingerprint != facts.backbone:
        raise CheckpointError(
            f"{place} was learned with the model {facts.backbone}, but it is {backbone.fingerprint} now; "
            "put the former weights back"
        )
    if conditions:
        own = backbone
        backbone = chosen.backbone.build(device)
        for name in ("latent_shape", "steps", "media", "condition_size"):
            if getattr(own, name) != getattr(backbone, name):
                raise InputError(f"condition {', '.join(conditions)}: that is another model ({name} differs)")
    setting = AlgorithmSetting(
        tuple(backbone.latent_shape),
        backbone.steps,
        backbone.media,
        config.batch_size,
        config.seed,
        # Conditions that somebody asked for are not the algorithm's to choose.
        conditions_are_free=backbone.conditions_are_free and not conditions,
        invariants=backbone.invariants,
        build_backbone=functools.partial(config.backbone.build, device),
    )
    return _Built(backbone, config.algorithm.build(setting))


__all__ = ["Guidance", "Observe"]
