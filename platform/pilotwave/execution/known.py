"""Which samples a campaign has asked about: a set that only grows, small enough for millions, told by its news.

A sample is kept as a fingerprint of 64 bits of its identity, 16 to 24 bytes each in all. Among a million samples
two have the same one with a chance below one in ten million; then one of them is taken for a repeat and another is
drawn.

The loop owns a :class:`KnownSamples` and gives each proposal a :class:`Known`, what was known at that moment. A
generator in another process keeps a :class:`KnownElsewhere` and is sent :class:`News`, what was added since the
last time; one that was started again has forgotten, says so, and is sent all::

    news = request.known.news(since=sent)              # the loop's side; `sent` is 0 at first
    known = elsewhere.after(news)                      # the generator's: a Known, or how many it does know
    if isinstance(known, int): ...                     # then news(since=known) is what it lacks

May import the standard library.
"""

from __future__ import annotations

import hashlib
import uuid
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

_EMPTY_TABLE = 1024
_FREE = 0


@dataclass(frozen=True)
class News:
    """What a campaign has come to know since the last time.

    Attributes:
        campaign: Whose samples they are: a generator may work for several.
        start: How many were known before.
        fingerprints: Of those that came since, 8 bytes each, in order.
    """

    campaign: str
    start: int
    fingerprints: bytes


class KnownSamples:
    """The samples of a campaign that were asked about or are about to be, in the order they came.

    Args:
        identities: Of those that are known from the beginning.
        campaign: Its name among others at one generator; a new one by default.
    """

    def __init__(self, identities: Iterable[str] = (), campaign: str = "") -> None:
        self.campaign = campaign or uuid.uuid4().hex
        self._order = array("Q")
        # Places in the order, from 1, by fingerprint: open addressing, at most half full.
        self._table = array("I", bytes(4 * _EMPTY_TABLE))
        for identity in identities:
            self.add(identity)

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, identity: object) -> bool:
        return isinstance(identity, str) and self._place(_fingerprint(identity)) > 0

    def add(self, identity: str) -> None:
        """Takes a sample in; one that is known changes nothing."""
        self._add(_fingerprint(identity))

    def now(self) -> Known:
        """Returns what is known at this moment; what is added later is not in it."""
        return Known(self, len(self._order))

    def is_among_the_first(self, count: int, identity: str) -> bool:
        """Says whether a sample was known when there were only so many."""
        return 0 < self._place(_fingerprint(identity)) <= count

    def news(self, since: int, until: int) -> News:
        """Returns the samples between two counts."""
        return News(self.campaign, since, self._order[since:until].tobytes())

    def learn(self, news: News) -> bool:
        """Takes news in; returns whether nothing is missing before them, without which they are left alone."""
        if news.start > len(self._order):
            return False
        fresh = array("Q")
        fresh.frombytes(news.fingerprints)
        for fingerprint in fresh[len(self._order) - news.start :]:
            self._add(fingerprint)
        return True

    def _add(self, fingerprint: int) -> None:
        if self._place(fingerprint):
            return
        self._order.append(fingerprint)
        if 2 * len(self._order) > len(self._table):
            table = array("I", bytes(8 * len(self._table)))
            for place, known in enumerate(self._order, 1):
                _enter(table, known, place)
            self._table = table  # at once: a generator's thread may be reading
        else:
            _enter(self._table, fingerprint, len(self._order))

    def _place(self, fingerprint: int) -> int:
        """Returns its place in the order, from 1, or 0."""
        table, order = self._table, self._order
        mask = len(table) - 1
        slot = fingerprint & mask
        while (place := table[slot]) != _FREE:
            if order[place - 1] == fingerprint:
                return place
            slot = (slot + 1) & mask
        return 0


class Known:
    """What a campaign knew at one moment, for ``in``. It travels to another process as a whole."""

    def __init__(self, samples: KnownSamples, count: int) -> None:
        self._samples = samples
        self._count = count

    @property
    def campaign(self) -> str:
        """Whose samples they are."""
        return self._samples.campaign

    def __len__(self) -> int:
        return self._count

    def __contains__(self, identity: object) -> bool:
        return isinstance(identity, str) and self._samples.is_among_the_first(self._count, identity)

    def __reduce__(self) -> tuple[object, ...]:
        return _known_of, (self.news(0),)

    def news(self, since: int) -> News:
        """Returns what a generator lacks that knows so many of the first already."""
        return self._samples.news(min(since, self._count), self._count)


class KnownElsewhere:
    """What a generator keeps of the samples that campaigns know."""

    def __init__(self) -> None:
        self._of: dict[str, KnownSamples] = {}

    def after(self, news: News) -> Known | int:
        """Takes news in; returns what the campaign knows with them, or how many are known without them.

        The latter where something before the news is missing: this generator was started again.
        """
        samples = self._of.setdefault(news.campaign, KnownSamples(campaign=news.campaign))
        if not samples.learn(news):
            return len(samples)
        return Known(samples, news.start + len(news.fingerprints) // 8)

    def forget(self, campaign: str) -> None:
        """Lets go of a campaign that has ended."""
        self._of.pop(campaign, None)


def _fingerprint(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")


def _enter(table: array[int], fingerprint: int, place: int) -> None:
    mask = len(table) - 1
    slot = fingerprint & mask
    while table[slot] != _FREE:
        slot = (slot + 1) & mask
    table[slot] = place


def _known_of(news: News) -> Known:
    samples = KnownSamples(campaign=news.campaign)
    samples.learn(news)
    return samples.now()


__all__ = ["Known", "KnownElsewhere", "KnownSamples", "News"]
