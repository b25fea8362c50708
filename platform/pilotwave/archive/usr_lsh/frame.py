"""What an index fixes when it is created and never changes: anchor, projection, tight frame, unit.

May import numpy, pilotwave.errors and the modules of the kernels.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh.compiling import ranges_of, side_by_side
from pilotwave.archive.usr_lsh.encoding import LANES, PLANES, encode, prepare
from pilotwave.archive.usr_lsh.orthonormal import principal_axes, random_columns
from pilotwave.errors import InputError

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.uint16]
Words = npt.NDArray[np.uint64]

LEAST_BITS, MOST_BITS = 64, 8192
UPDATES = ("descent", "sign")
_ROWS_A_TASK = 512


@dataclass(frozen=True, eq=False)
class Frame:
    """The fixed part of an index; two indexes with equal frames give equal vectors equal codes.

    Attributes:
        dim: D, of the vectors.
        bits: n, of a code.
        sweeps: T, at most, over the bits of a code.
        update: ``"descent"`` or ``"sign"``.
        seed: What was drawn was drawn from this.
        scale: The unit in which the two stored numbers are measured.
        whole: Whether N2 counts what the projection leaves out: with a public sample it does.
        anchor: c, (dim,).
        projection: P, (dim, reduced), orthonormal columns.
        rows: Of the Hadamard matrix, (reduced,), rising.
    """

    dim: int
    bits: int
    sweeps: int
    update: str
    seed: int
    scale: float
    whole: bool
    anchor: Floats
    projection: Floats
    rows: npt.NDArray[np.int32]

    @property
    def words(self) -> int:
        """64-bit words in a code."""
        return self.bits // 64

    @property
    def stretch(self) -> float:
        """Squared distances between vectors, over those between what is compared."""
        return 1.0 if self.whole else self.dim / len(self.rows)

    @property
    def settings(self) -> dict[str, Any]:
        """The numbers and names, without the arrays."""
        names = ("dim", "bits", "sweeps", "update", "seed", "scale", "whole")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides about codes."""
        found = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for array in (self.anchor, self.projection, self.rows):
            found.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return found.hexdigest()

    def encode(self, vectors: Floats, threads: int) -> tuple[Words, Halves, Halves]:
        """Returns codes, factors and norms (both as half-precision bits) of finite vectors (n, dim).

        Raises:
            InputError: A vector lies too far from the anchor for half precision.
        """
        codes = np.empty((len(vectors), self.words), dtype=np.uint64)
        factors = np.empty(len(vectors), dtype=np.float32)
        norms = np.empty(len(vectors), dtype=np.float64)
        kernel, descent = self._kernel, self.update == "descent"

        def work(a: int, b: int) -> None:
            parts = codes[a:b], factors[a:b], norms[a:b]
            frame = self.anchor, self.projection, self.rows, self._kept, kernel
            encode(vectors[a:b], *frame, self.sweeps, descent, self.whole, *parts)

        side_by_side(work, ranges_of(len(vectors), _ROWS_A_TASK), threads)
        with np.errstate(over="ignore"):
            small_factors = (factors / np.float32(self.scale)).astype(np.float16)
            small_norms = (norms / self.scale**2).astype(np.float16)
        far = ~(np.isfinite(small_factors) & np.isfinite(small_norms))
        if far.any():
            row = int(np.flatnonzero(far)[0])
            raise InputError(
                f"vectors: expected at most {255 * self.scale:.4g} from the anchor, but row {row} lies "
                f"{math.sqrt(norms[row]):.4g} away; give a larger scale when the index is created, or divide "
                "the vectors"
            )
        return codes, small_factors.view(np.uint16), small_norms.view(np.uint16)

    def prepare(self, queries: Floats, threads: int) -> tuple[Words, Floats, Doubles]:
        """Returns planes, steps (in the unit) and N2 (in the vectors' own) of finite queries (n, dim)."""
        planes = np.empty((len(queries), PLANES, self.words), dtype=np.uint64)
        steps = np.empty(len(queries), dtype=np.float32)
        norms = np.empty(len(queries), dtype=np.float64)

        def work(a: int, b: int) -> None:
            parts = planes[a:b], steps[a:b], norms[a:b]
            prepare(queries[a:b], self.anchor, self.projection, self.rows, self.bits, self.whole, *parts)

        side_by_side(work, ranges_of(len(queries), _ROWS_A_TASK), threads)
        return planes, steps / np.float32(self.scale), norms

    @cached_property
    def _kept(self) -> Floats:
        kept = np.zeros(self.bits, dtype=np.float32)
        kept[self.rows] = 1.0 / self.bits
        return kept

    @cached_property
    def _kernel(self) -> Floats:
        """G_ij as a function of i xor j, its lowest bits of j permuted in every way. (LANES, bits)."""
        places = np.arange(self.bits)
        ones = np.zeros(self.bits)
        for row in self.rows:  # counts of +1 and -1 are whole numbers: exact in any order
            ones += 1.0 - 2.0 * (np.bitwise_count(places & int(row)) & 1)
        return np.stack([(ones / self.bits)[places ^ lane] for lane in range(LANES)]).astype(np.float32)


def make_frame(
    dim: int,
    bits: int,
    anchor: npt.ArrayLike | None,
    sweeps: int,
    update: str,
    seed: int,
    reduced: int | None,
    scale: float | None,
    threads: int,
) -> Frame:
    """Draws a frame; see :class:`~pilotwave.archive.usr_lsh.index.UsrLshIndex` for the arguments.

    Raises:
        InputError: An argument is out of range.
    """
    _check_whole("dim", dim, 1, 2**24)
    _check_whole("bits", bits, LEAST_BITS, MOST_BITS)
    if bits & (bits - 1):
        raise InputError(f"bits: expected a power of two from {LEAST_BITS} to {MOST_BITS}, got {bits}")
    _check_whole("sweeps", sweeps, 0, 1000)
    _check_whole("seed", seed, 0, 2**63 - 1)
    if update not in UPDATES:
        raise InputError(f"update: expected one of {', '.join(UPDATES)}, got {update!r}")
    sample = None if anchor is None else _checked_sample(anchor, dim)
    if reduced is None:
        reduced = dim if dim <= bits // 2 else bits // 2 if sample is None else bits // 3
    _check_whole("reduced", reduced, 1, min(dim, bits))
    random = np.random.default_rng(seed)
    if sample is None:
        centre = np.zeros(dim)
        projection = random_columns(dim, reduced, random)
    else:
        centre = sample.sum(axis=0) / len(sample)
        if reduced == dim:
            projection = random_columns(dim, reduced, random)
        else:
            projection = principal_axes(sample - centre, reduced, random, threads)
    rows = np.sort(random.permutation(bits)[:reduced]).astype(np.int32)
    return Frame(
        dim,
        bits,
        sweeps,
        update,
        seed,
        _scale(scale, dim, sample, centre),
        sample is not None,
        centre.astype(np.float32),
        np.ascontiguousarray(projection, dtype=np.float32),
        rows,
    )


def _scale(given: float | None, dim: int, sample: Doubles | None, centre: Doubles) -> float:
    """The unit: what was given, or the power of two nearest to how far vectors usually lie from the anchor."""
    if given is not None:
        if not (isinstance(given, int | float) and math.isfinite(given) and given > 0.0):
            raise InputError(f"scale: expected a finite number above 0, got {given!r}")
        return float(given)
    usual = math.sqrt(dim)
    if sample is not None:
        spread = float(((sample - centre) ** 2).sum()) / len(sample)
        usual = math.sqrt(spread) or usual
    return float(2.0 ** round(math.log2(usual)))


def _checked_sample(anchor: npt.ArrayLike, dim: int) -> Doubles:
    try:
        sample = np.array(anchor, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"anchor: expected numbers of shape (m, {dim}), got {type(anchor).__name__}") from None
    if sample.ndim != 2 or sample.shape[1] != dim or not len(sample):
        raise InputError(f"anchor: expected a public sample of shape (m, {dim}), got {sample.shape}")
    if not np.isfinite(sample).all() or np.abs(sample).max() > 1e30:
        raise InputError("anchor: expected finite numbers, got NaN, infinite or beyond 1e30")
    return sample


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= most:  # type: ignore[call-overload]
        raise InputError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")


__all__ = ["Frame", "make_frame"]
