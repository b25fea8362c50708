"""From a proposal to candidates that an oracle may be asked about; runs next to the model.

In place of a candidate that cannot be decoded, breaks a constraint or repeats a known answer others are drawn
from fresh seeds. Everything that was judged is returned, so that it can be counted. May import
:mod:`pilotwave.protocols`, :mod:`pilotwave.types` and the modules beside it.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence

from torch import Tensor

from pilotwave.execution.fitting import make_what_fits
from pilotwave.execution.workers import GenerationRequest, GenerationResult
from pilotwave.protocols import Backbone, Constraint
from pilotwave.samples import Invalid, Sample
from pilotwave.types import Candidate, Draw

REPEAT = "repeat: its answer is known or on its way"
"""Why a sample that is known need not be asked about."""


def generate_candidates(
    backbone: Backbone, constraints: Sequence[Constraint], request: GenerationRequest
) -> GenerationResult:
    """Runs a proposal's plan until it has enough feasible candidates or the redraws are used up.

    Deterministic: the same request gives the same result.

    Raises:
        InfrastructureError: Not even one sample fits into memory.
    """
    started = time.time()
    proposal = request.proposal
    made: set[str] = set()
    drawn: list[Candidate] = []
    feasible: list[str] = []
    passes, together = 0, request.together
    for attempt in range(request.redraws + 1):
        wanted = proposal.count - len(feasible)
        if not wanted:
            break
        # Redraws come in twos: where many fail, more draws at once cost less than more rounds of the plan.
        width = min(proposal.count, wanted if attempt == 0 else 2 * wanted)
        draws = [Draw.of(request.campaign_seed, proposal.number, slot, attempt) for slot in range(width)]
        whole = make_what_fits(backbone, proposal.plan, draws, together)
        batch, together = whole.batch, whole.together
        passes = max(passes, batch.passes)
        for i, (draw, sample) in enumerate(zip(draws, whole.samples, strict=True)):
            if len(feasible) == proposal.count:
                break  # what was drawn beyond a full batch is dropped unseen
            tensors = (batch.noise_sequence[:, i], batch.latents[i], batch.conditions[i])
            candidate = _judge(draw, proposal.number, tensors, sample, constraints, (request.known, made))
            drawn.append(candidate)
            if candidate.infeasible is None and candidate.sample is not None:
                feasible.append(candidate.query_id)
                made.add(candidate.sample.identity())
    return GenerationResult(
        proposal.number, tuple(drawn), tuple(feasible), passes, started, time.time(), together=together
    )


def _judge(
    draw: Draw,
    proposal: int,
    tensors: tuple[Tensor, Tensor, Tensor],
    sample: Sample | Invalid,
    constraints: Sequence[Constraint],
    known: Sequence[Container[str]],
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
        if reason is None:
            identity = sample.identity()
            if any(identity in samples for samples in known):
                reason = REPEAT
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


__all__ = ["REPEAT", "generate_candidates"]
