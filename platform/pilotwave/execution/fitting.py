"""Batches sized to memory: what does not fit is halved, and tried again.

The batch is split where a plan gets its draws, not inside the sampler. A plan's hooks are closures over its whole
batch (conditions, the noise that they edit); a sampler that showed them a part of it would make them mix samples.
Given fewer draws, the plan makes fewer samples and hooks that fit, and since each sample comes from its own draw
alone, the parts put together are the batch, up to the rounding of products of another shape. (What a plan prepares
for its batch, a surrogate for example, is prepared again for each part.) A plan whose samples depend on each other
says so by ``couples_draws = True`` and is never split.

How many samples fit is found once for a campaign, written down with the first batch that had to be split, and kept
to from then on, also by a driver that resumes it: its batches are split where those of a driver that was never
stopped are. It is the least that any generator found, so it is right for all of them.

May import :mod:`pilotwave.protocols`, :mod:`pilotwave.types`, torch and the standard library.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pilotwave.errors import InfrastructureError
from pilotwave.protocols import Backbone, Plan
from pilotwave.samples import Invalid, Sample
from pilotwave.types import Draw, GeneratedBatch

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How a RuntimeError says that there is no memory left: of the CPU, of a GPU's driver, of its libraries."""
GIBIBYTE = 2**30


@dataclass(frozen=True)
class Made:
    """A batch that was made.

    Attributes:
        batch: What the plan made.
        samples: Its latents, decoded.
        together: How many samples fit at once as far as is known, or None if any number did.
    """

    batch: GeneratedBatch
    samples: list[Sample | Invalid]
    together: int | None


def make_what_fits(backbone: Backbone, plan: Plan, draws: Sequence[Draw], together: int | None = None) -> Made:
    """Makes and decodes one sample per draw, as many at once as fit into memory.

    Args:
        backbone: The model.
        plan: What is done with it.
        draws: At least one.
        together: How many fit at once, if that is known.

    Raises:
        InfrastructureError: Not even one sample fits, or the plan cannot be split.
    """
    parts: list[tuple[GeneratedBatch, list[Sample | Invalid]]] = []
    done = 0
    while done < len(draws):
        size = min(len(draws) - done, together or len(draws))
        part = draws[done : done + size]
        made, refusal = _try(backbone, plan, part)
        if made is not None:
            parts.append(made)
            done += size
            continue
        _let_go_of_memory()
        if size == 1:
            raise InfrastructureError(
                f"one sample of {backbone.name} does not fit into the memory of {backbone.device} "
                f"({memory_in_words(backbone.device)}): {refusal}; choose a smaller model or precision: bfloat16, "
                "or let fewer others use that memory"
            )
        if getattr(plan, "couples_draws", False):
            raise InfrastructureError(
                f"{size} samples of {backbone.name} do not fit into the memory of {backbone.device} "
                f"({memory_in_words(backbone.device)}), and the algorithm needs them all at once: {refusal}; lower "
                "budget.batch_size"
            )
        together = size // 2
    return Made(_joined([batch for batch, _ in parts]), [one for _, samples in parts for one in samples], together)


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an error means that memory is short, of the CPU or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def memory_in_words(device: str) -> str:
    """Returns how much memory a device has and how much of it is free, e.g. ``"1.2 of 15.8 GiB free"``."""
    unknown = "how much there is cannot be told"
    if device.startswith("cuda") and not torch.cuda.is_available():
        return unknown
    try:
        if device.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(device)
        else:
            pages = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PHYS_PAGES")
            free, total = (count * os.sysconf("SC_PAGE_SIZE") for count in pages)
    except (AttributeError, OSError, RuntimeError, ValueError):
        return unknown
    return f"{free / GIBIBYTE:.1f} of {total / GIBIBYTE:.1f} GiB free"


def _try(
    backbone: Backbone, plan: Plan, draws: Sequence[Draw]
) -> tuple[tuple[GeneratedBatch, list[Sample | Invalid]] | None, str]:
    """Returns what was made, or why it did not fit; no traceback is left that would hold on to the memory."""
    try:
        batch = plan.generate(backbone, draws)
        return (batch, backbone.decode(batch.latents, batch.conditions)), ""
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None, str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _let_go_of_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _joined(batches: Sequence[GeneratedBatch]) -> GeneratedBatch:
    if len(batches) == 1:
        return batches[0]
    return GeneratedBatch(
        torch.cat([batch.noise_sequence for batch in batches], dim=1),
        torch.cat([batch.latents for batch in batches]),
        torch.cat([batch.conditions for batch in batches]),
        passes=max(batch.passes for batch in batches),
    )


__all__ = ["Made", "is_out_of_memory", "make_what_fits", "memory_in_words"]
