"""Encoding: a vector's projection, its bits by coordinate descent, its two numbers. One row at a time.

The symbols of the definition (docs/memory.md) and ours: p = ``projected``, z = p / ||p||, v = R^T z = ``targets``,
b = ``signs`` (+1, -1), w = G b = ``response``, G_ij = ``kernel[i ^ j]``, F = ``factors``, N2 = ``norms``.

N2 is ||x - c||^2 with principal axes: what they leave out says how far x lies from them. Random directions leave
out what looks like the rest of the vector, and differences of it are as short as those of p; there N2 is ||p||^2,
and distances are estimated among the projections.

R holds some rows of the Hadamard matrix over sqrt(n). Multiplying its columns by random signs would rename the
values of bits and nothing else (b_i and v_i change sign together), so none are drawn; the randomness is in P and
in the rows. Because H_ri H_rj = H_r(i^j), G needs n numbers instead of n^2.

Rows are worked on in blocks for the sake of the cache, but no sum ever mixes two rows or depends on the block: a
vector's code is the same whatever batch it came in. May import numpy and the module ``compiling``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh.compiling import compiled

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]

LANES = 16
"""The kernel of G is stored in so many orders, so that a column of G is read in whole pieces."""
_BLOCK = 16
PLANES = 6
"""Bits to which a query is quantised."""


@compiled
def _hadamard(values: Floats) -> None:
    """Multiplies by the Hadamard matrix in place, without its factor 1 / sqrt(n)."""
    count = values.shape[0]
    half = 1
    while half < count:
        for start in range(0, count, 2 * half):
            for i in range(start, start + half):
                left, right = values[i], values[i + half]
                values[i] = left + right
                values[i + half] = left - right
        half *= 2


@compiled
def _project(rows: Floats, anchor: Floats, projection: Floats, projected: Floats) -> None:
    """P^T (x - c) of a few rows; every sum runs over the dimensions in their order."""
    count, dim = rows.shape
    reduced = projection.shape[1]
    projected[:] = np.float32(0.0)
    whole = dim - dim % 4
    for j in range(0, whole, 4):
        for r in range(count):
            x0, x1 = rows[r, j] - anchor[j], rows[r, j + 1] - anchor[j + 1]
            x2, x3 = rows[r, j + 2] - anchor[j + 2], rows[r, j + 3] - anchor[j + 3]
            for k in range(reduced):
                total = projected[r, k] + x0 * projection[j, k]
                total = total + x1 * projection[j + 1, k]
                total = total + x2 * projection[j + 2, k]
                projected[r, k] = total + x3 * projection[j + 3, k]
    for j in range(whole, dim):
        for r in range(count):
            x0 = rows[r, j] - anchor[j]
            for k in range(reduced):
                projected[r, k] += x0 * projection[j, k]


@compiled
def _dot(left: Floats, right: Floats) -> np.float32:
    """A sum in four strands; lengths are multiples of four here."""
    a = b = c = d = np.float32(0.0)
    for i in range(0, left.shape[0], 4):
        a += left[i] * right[i]
        b += left[i + 1] * right[i + 1]
        c += left[i + 2] * right[i + 2]
        d += left[i + 3] * right[i + 3]
    return (a + b) + (c + d)


@compiled
def _square_distance(row: Floats, anchor: Floats) -> float:
    """||x - c||^2 in float64, in four strands."""
    a = b = c = d = 0.0
    whole = row.shape[0] - row.shape[0] % 4
    for i in range(0, whole, 4):
        x0, x1 = np.float64(row[i] - anchor[i]), np.float64(row[i + 1] - anchor[i + 1])
        x2, x3 = np.float64(row[i + 2] - anchor[i + 2]), np.float64(row[i + 3] - anchor[i + 3])
        a += x0 * x0
        b += x1 * x1
        c += x2 * x2
        d += x3 * x3
    for i in range(whole, row.shape[0]):
        x0 = np.float64(row[i] - anchor[i])
        a += x0 * x0
    return (a + b) + (c + d)


@compiled
def _square(projected: Floats) -> float:
    """||p||^2 in float64."""
    total = 0.0
    for k in range(projected.shape[0]):
        one = np.float64(projected[k])
        total += one * one
    return total


@compiled
def _spread(projected: Floats, rows: Integers, scale: np.float32, targets: Floats) -> None:
    """R^T of a projected vector times ``scale``."""
    targets[:] = np.float32(0.0)
    for k in range(rows.shape[0]):
        targets[rows[k]] = projected[k] * scale
    _hadamard(targets)


@compiled
def _respond(signs: Floats, kept: Floats, response: Floats) -> None:
    """G b by two Hadamard transforms; ``kept`` is 1 / n at the rows of R and 0 elsewhere."""
    response[:] = signs
    _hadamard(response)
    for i in range(response.shape[0]):
        response[i] *= kept[i]
    _hadamard(response)


@compiled
def _descend(targets: Floats, kernel: Floats, signs: Floats, response: Floats, sweeps: int) -> None:
    """Coordinate descent on ||z - s R b||^2 over the bits; ends when a sweep flips nothing."""
    bits = targets.shape[0]
    diagonal = kernel[0, 0]
    for _ in range(sweeps):
        scale = _dot(targets, signs) / _dot(response, signs)
        least = scale * diagonal
        flipped = False
        for i in range(bits):
            if least < -signs[i] * (targets[i] - scale * response[i]):
                change = np.float32(-2.0) * signs[i]
                signs[i] = -signs[i]
                order, first = i % LANES, i // LANES
                for piece in range(bits // LANES):
                    source, place = (piece ^ first) * LANES, piece * LANES
                    for lane in range(LANES):
                        response[place + lane] += change * kernel[order, source + lane]
                flipped = True
        if not flipped:
            break


@compiled
def _sign_updates(targets: Floats, kept: Floats, signs: Floats, response: Floats, sweeps: int) -> None:
    """The paper's form, all bits at once: b <- sign(v / s + (I - G) b)."""
    for _ in range(sweeps):
        scale = _dot(targets, signs) / _dot(response, signs)
        changed = False
        for i in range(targets.shape[0]):
            one = np.float32(1.0)
            if targets[i] / scale + signs[i] - response[i] < np.float32(0.0):
                one = np.float32(-1.0)
            changed |= one != signs[i]
            signs[i] = one
        if not changed:
            break
        _respond(signs, kept, response)


@compiled
def encode(
    vectors: Floats,
    anchor: Floats,
    projection: Floats,
    rows: Integers,
    kept: Floats,
    kernel: Floats,
    sweeps: int,
    descent: bool,
    whole: bool,
    codes: Words,
    factors: Floats,
    norms: npt.NDArray[np.float64],
) -> None:
    """Fills the codes and numbers of some vectors.

    Args:
        vectors: x, shape (n, dim), finite.
        anchor: c, (dim,).
        projection: P, (dim, reduced).
        rows: Of the Hadamard matrix, (reduced,).
        kept: 1 / bits at those rows, 0 elsewhere, (bits,).
        kernel: Of G, in :data:`LANES` orders, (LANES, bits).
        sweeps: T, at most.
        descent: Coordinate descent, or the paper's form.
        whole: N2 is the square of x - c, not of p.
        codes: Out: (n, bits / 64), bit i of the code is bit i % 64 of word i // 64.
        factors: Out: F = 2 ||p|| / <v, b>, (n,); 0 if p is 0.
        norms: Out: N2, (n,).
    """
    bits = kept.shape[0]
    projected = np.empty((_BLOCK, rows.shape[0]), dtype=np.float32)
    targets = np.empty(bits, dtype=np.float32)
    signs = np.empty(bits, dtype=np.float32)
    response = np.empty(bits, dtype=np.float32)
    for start in range(0, vectors.shape[0], _BLOCK):
        stop = min(start + _BLOCK, vectors.shape[0])
        _project(vectors[start:stop], anchor, projection, projected)
        for r in range(start, stop):
            codes[r] = np.uint64(0)
            factors[r] = np.float32(0.0)
            square = _square(projected[r - start])
            norms[r] = _square_distance(vectors[r], anchor) if whole else square
            length = np.sqrt(square)
            if length == 0.0:
                continue
            _spread(projected[r - start], rows, np.float32(1.0 / (length * np.sqrt(bits))), targets)
            for i in range(bits):
                signs[i] = np.float32(1.0) if targets[i] >= np.float32(0.0) else np.float32(-1.0)
            _respond(signs, kept, response)
            if descent:
                _descend(targets, kernel, signs, response, sweeps)
            else:
                _sign_updates(targets, kept, signs, response, sweeps)
            factors[r] = np.float32(2.0 * length / _dot(targets, signs))
            for i in range(bits):
                if signs[i] > np.float32(0.0):
                    codes[r, i // 64] |= np.uint64(1) << np.uint64(i % 64)


@compiled
def prepare(
    queries: Floats,
    anchor: Floats,
    projection: Floats,
    rows: Integers,
    bits: int,
    whole: bool,
    planes: Words,
    steps: Floats,
    norms: npt.NDArray[np.float64],
) -> None:
    """Quantises y = R^T P^T (q - c) of some queries to odd multiples of half a step.

    Args:
        queries: q, shape (n, dim), finite.
        anchor: c, (dim,).
        projection: P, (dim, reduced).
        rows: Of the Hadamard matrix, (reduced,).
        bits: Of a code.
        whole: As in :func:`encode`.
        planes: Out: (n, PLANES, bits / 64). Plane k says for each i whether 2^k counts up or down in
            y_i = steps / 2 * sum_k (+-) 2^k.
        steps: Out: (n,).
        norms: Out: the same square of a query, (n,).
    """
    projected = np.empty((_BLOCK, rows.shape[0]), dtype=np.float32)
    targets = np.empty(bits, dtype=np.float32)
    top = 2**PLANES - 1
    for start in range(0, queries.shape[0], _BLOCK):
        stop = min(start + _BLOCK, queries.shape[0])
        _project(queries[start:stop], anchor, projection, projected)
        for r in range(start, stop):
            square = _square(projected[r - start])
            norms[r] = _square_distance(queries[r], anchor) if whole else square
            planes[r] = np.uint64(0)
            _spread(projected[r - start], rows, np.float32(1.0 / np.sqrt(bits)), targets)
            largest = np.float32(0.0)
            for i in range(bits):
                largest = max(largest, abs(targets[i]))
            steps[r] = np.float32(2.0) * largest / np.float32(top)
            if largest == np.float32(0.0):
                continue
            for i in range(bits):
                level = np.int64(np.floor((targets[i] / steps[r]) + np.float32(0.5 * (top + 1))))
                level = min(max(level, np.int64(0)), np.int64(top))
                for k in range(PLANES):
                    if (level >> k) & 1:
                        planes[r, k, i // 64] |= np.uint64(1) << np.uint64(i % 64)


__all__ = ["LANES", "PLANES", "encode", "prepare"]
