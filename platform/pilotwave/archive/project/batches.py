"""Takes records a few at a time. May import the standard library."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields the items in lists of a size; the last may be shorter."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


__all__ = ["batches_of"]
