"""How the index's kernels are compiled: plain IEEE arithmetic in the order it is written, without Python's lock.

Neither ``fastmath`` nor fused multiply-adds: then every machine and every batch gives the same bits. Kernels are
kept on disk by numba, so only the first process on a machine waits for the compiler. Parallelism is threads of
Python over ranges of rows, not numba's own: that survives a fork and calls from several threads.

May import numba (extra ``archive``) and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from pilotwave.errors import MissingDependencyError

try:
    import numba
    from numba.extending import intrinsic as numba_intrinsic
except ImportError as error:
    raise MissingDependencyError(
        "the index needs numba, which is not installed; run: pip install 'pilotwave[archive]'"
    ) from error

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiles a kernel at its first call; it must allocate what it needs itself and keep its loops' order."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    kernel: Any
    try:
        kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no place that could be written for a cache: every process compiles for itself
        kernel = numba.njit(**options)(function)
    return cast(Function, kernel)


def _popcount(_typing: Any, word: Any) -> Any:

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


popcount: Any = numba_intrinsic(_popcount)
"""The number of ones in a 64-bit word, as the processor's own instruction where it has one; for kernels only."""


def available_threads() -> int:
    """Returns how many cores this process may use, no more than ``OMP_NUM_THREADS`` if that is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdigit() and int(asked) > 0 else cores


def side_by_side(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], threads: int) -> list[Any]:
    """Calls ``work(*task)`` for every task, in so many threads; returns the results in the order of the tasks."""
    if threads <= 1 or len(tasks) <= 1:
        return [work(*task) for task in tasks]
    with ThreadPoolExecutor(min(threads, len(tasks))) as pool:
        return list(pool.map(lambda task: work(*task), tasks))


def ranges_of(count: int, size: int) -> list[tuple[int, int]]:
    """Cuts ``0 ... count`` into ranges of at most ``size``."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


__all__ = ["available_threads", "compiled", "popcount", "ranges_of", "side_by_side"]
