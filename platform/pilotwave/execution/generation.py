"""From a proposal to candidates that an oracle may be asked about; runs next to the model.

A slot whose candidate cannot be decoded, breaks a constraint or repeats a known answer is drawn again from a
fresh seed. Everything that was drawn is returned, so that it can be counted. May import
:mod:`pilotwave.protocols`, :mod:`pilotwave.types` and :mod:`pilotwave.execution.workers`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from pilotwave.execution.workers import GenerationRequest, GenerationResult
from pilotwave.protocols import Backbone, Constraint
from pilotwave.samples import Invalid, Sample
from pilotwave.types import Candidate, Draw


def generate_candidates(
    backbone: Backbone, constraints: Sequence[Constraint], request: GenerationRequest
) -> GenerationResult:
    """Runs a proposal's plan until each slot has a feasible candidate or the redraws are used up.

    Deterministic: the same request gives the same result.
    """
    started = time.time()
    proposal = request.proposal
    known = set(request.known)
    drawn: list[Candidate] = []
    feasible: dict[int, str] = {}
    passes = 0
    for attempt in range(request.redraws + 1):
        slots = [slot for slot in range(proposal.count) if slot not in feasible]
        if not slots:
            break
        draws = [Draw.of(request.campaign_seed, proposal.number, slot, attempt) for slot in slots]
        batch = proposal.plan.generate(backbone, draws)
        passes = max(passes, batch.passes)
        samples = backbone.decode(batch.latents, batch.conditions)
        for i, (slot, draw, sample) in enumerate(zip(slots, draws, samples, strict=True)):
            candidate = _judge(
                draw,
                proposal.number,
                (batch.noise_sequence[:, i], batch.latents[i], batch.conditions[i]),
                sample,
                constraints,
                known,
            )
            drawn.append(candidate)
            if candidate.infeasible is None and candidate.sample is not None:
                feasible[slot] = candidate.query_id
                known.add(candidate.sample.identity())
    ordered = tuple(feasible[slot] for slot in sorted(feasible))
    return GenerationResult(proposal.number, tuple(drawn), ordered, passes, started, time.time())


def _judge(
    draw: Draw,
    proposal: int,
    tensors: tuple[Tensor, Tensor, Tensor],
    sample: Sample | Invalid,
    constraints: Sequence[Constraint],
    known: set[str],
) -> Candidate:
    """Makes the candidate of a draw, with the first reason why it may not be asked about."""
    reason: str | None = None
    properties: dict[str, float] = {}
    if isinstance(sample, Invalid):
        reason = f"{sample.stage}: {sample.reason}"
    else:
        for constraint in constraints:
            verdict = constraint.check(sample)
            properties.update(verdict.properties)
            if verdict.reason is not None:
                reason = f"{constraint.name}: {verdict.reason}"
                break
        if reason is None and sample.identity() in known:
            reason = "repeat: its answer is known or on its way"
    noise_sequence, latent, condition = (tensor.detach().cpu().clone() for tensor in tensors)
    return Candidate(
        query_id=draw.query_id,
        seed=draw.seed,
        proposal=proposal,
        noise_sequence=noise_sequence,
        latent=latent,
        condition=condition,
        sample=None if isinstance(sample, Invalid) else sample,
        infeasible=reason,
        properties=properties,
    )


__all__ = ["generate_candidates"]
