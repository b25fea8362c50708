"""Candidates as rows of the ledger's table, and back, exactly.

May import :mod:`pilotwave.types` and :mod:`pilotwave.samples`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilotwave.samples import sample_from_payload
from pilotwave.types import Candidate


def candidate_row(candidate: Candidate) -> tuple[Any, ...]:
    """Returns the cells of a candidate, in the order of the table."""
    identity, media, fields, blob = None, None, None, None
    if candidate.sample is not None:
        identity, media = candidate.sample.identity(), candidate.sample.media
        payload, blob = candidate.sample.payload()
        fields = json.dumps(payload, sort_keys=True)
    return (
        candidate.query_id,
        candidate.proposal,
        candidate.seed,
        _to_bytes(candidate.noise_sequence, torch.float32),
        json.dumps(list(candidate.noise_sequence.shape)),
        _to_bytes(candidate.latent, torch.float32),
        _to_bytes(candidate.condition, torch.int64),
        identity,
        media,
        fields,
        blob,
        candidate.infeasible,
        json.dumps(dict(candidate.properties), sort_keys=True),
    )


def candidate_of(row: Sequence[Any]) -> Candidate:
    """Inverts :func:`candidate_row`."""
    query_id, proposal, seed, noise, shape, latent, condition, _, media, fields, blob, infeasible, properties = row
    noise_shape = json.loads(shape)
    return Candidate(
        query_id=query_id,
        seed=seed,
        proposal=proposal,
        noise_sequence=_from_bytes(noise, np.float32).reshape(noise_shape),
        latent=_from_bytes(latent, np.float32).reshape(noise_shape[1:]),
        condition=_from_bytes(condition, np.int64),
        sample=None if media is None else sample_from_payload(media, json.loads(fields), blob),
        infeasible=infeasible,
        properties=json.loads(properties),
    )


def _to_bytes(tensor: Tensor, dtype: torch.dtype) -> bytes:
    return bytes(tensor.detach().to("cpu", dtype).contiguous().numpy().tobytes())


def _from_bytes(blob: bytes, dtype: type[np.generic]) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, dtype=dtype).copy())


__all__ = ["candidate_of", "candidate_row"]
