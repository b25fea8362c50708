"""One thread for all of numpy, scikit-learn and torch: with another number products round otherwise.

May import torch; threadpoolctl inside the function.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pilotwave.errors import MissingDependencyError


@contextmanager
def one_thread() -> Iterator[None]:
    """Has everything inside computed by one thread, so that a run is the same on whatever machine and worker.

    Raises:
        MissingDependencyError: threadpoolctl is not installed.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingDependencyError(
            "comparisons need threadpoolctl, which is not installed; run: pip install 'pilotwave[bench]'"
        ) from error
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


__all__ = ["one_thread"]
