"""What a study searches: dotted fields of a campaign, each with its choices or its range.

A point says one value for every field that counts; a field with ``when`` counts only where another one was chosen
so. May import pydantic, numpy and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Point = dict[str, Any]
"""From dotted fields to values, in the order in which they are set."""
Number = Annotated[float, Field(allow_inf_nan=False)]
Way = Literal["choice", "uniform", "log_uniform", "integer"]
WAYS: tuple[Way, ...] = ("choice", "uniform", "log_uniform", "integer")


class Dimension(BaseModel):
    """How one field is searched: exactly one of the four ways.

    Attributes:
        when: Fields of the campaign that must have these values (or one of a list) for this field to count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choice: tuple[Any, ...] | None = Field(None, min_length=1, description="One of these values, or sections.")
    uniform: tuple[Number, Number] | None = Field(None, description="A number between these two.")
    log_uniform: tuple[Number, Number] | None = Field(
        None, description="A number between these two, evenly by its logarithm."
    )
    integer: tuple[int, int] | None = Field(None, description="A whole number between these two, both included.")
    when: dict[str, Any] = Field(
        default_factory=dict,
        description="Other fields that must have these values for this one to count, e.g. {algorithm.kind: dno}.",
    )

    @model_validator(mode="before")
    @classmethod
    def _says_how(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            raise ValueError(
                "expected {choice: [...]}, {uniform: [a, b]}, {log_uniform: [a, b]} or {integer: [a, b]}"
            )
        given = [way for way in WAYS if fields.get(way) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(WAYS)}, got {' and '.join(given) or 'none'}")
        return fields

    @field_validator("choice")
    @classmethod
    def _no_twins(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        for place, value in enumerate(values or ()):
            if any(type(value) is type(other) and value == other for other in (values or ())[:place]):
                raise ValueError(f"the choice {value!r} is said twice; keep one")
        return values

    @field_validator("uniform", "log_uniform", "integer")
    @classmethod
    def _upwards(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"expected a smaller and a larger number, got {ends[0]} and {ends[1]}")
        return ends

    @field_validator("log_uniform")
    @classmethod
    def _above_zero(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and ends[0] <= 0:
            raise ValueError(f"expected numbers above 0, got {ends[0]}")
        return ends

    @property
    def way(self) -> Way:
        """Which of the four."""
        found: Way = next(way for way in WAYS if getattr(self, way) is not None)
        return found

    @property
    def values(self) -> tuple[Any, ...]:
        """The choices, or the two ends of the range."""
        found: tuple[Any, ...] = getattr(self, self.way)
        return found

    def draw(self, random: np.random.Generator) -> Any:
        """Draws a value."""
        match self.way:
            case "choice":
                return self.values[int(random.integers(len(self.values)))]
            case "uniform":
                return float(random.uniform(*self.values))
            case "log_uniform":
                low, high = (math.log(end) for end in self.values)
                return min(max(math.exp(float(random.uniform(low, high))), self.values[0]), self.values[1])
            case "integer":
                return int(random.integers(self.values[0], self.values[1] + 1))

    def holds(self, value: Any) -> bool:
        """Says whether a value may come of it."""
        if self.way == "choice":
            return value in self.values
        whole = self.way != "integer" or isinstance(value, int)
        return whole and self.values[0] <= value <= self.values[1]


Search = Mapping[str, Dimension]


def in_order(search: Search) -> dict[str, Dimension]:
    """Returns the fields in the order in which they are set: a section before the fields in it."""
    return dict(sorted(search.items(), key=lambda item: item[0].count(".")))


def active(search: Search, raw: Mapping[str, Any], base: Mapping[str, Any]) -> Point:
    """Leaves out of a point the fields whose condition does not hold.

    Args:
        search: All fields.
        raw: A value of each.
        base: The campaign's fields, for conditions on what is not searched.
    """
    point: Point = {}
    for name, dimension in in_order(search).items():
        if all(_is_one_of(_look_up(other, point, base), wanted) for other, wanted in dimension.when.items()):
            point[name] = raw[name]
    return point


def draw(search: Search, base: Mapping[str, Any], seed: Sequence[int]) -> Point:
    """Draws a point; the same one for the same seed."""
    random = np.random.default_rng(list(seed))
    return active(search, {name: each.draw(random) for name, each in sorted(search.items())}, base)


def grid(search: Search, base: Mapping[str, Any]) -> Iterator[Point]:
    """Yields every combination of the choices once; the ends stand for a range."""
    seen = set()
    names = list(search)
    for values in itertools.product(*(search[name].values for name in names)):
        point = active(search, dict(zip(names, values, strict=True)), base)
        key = repr(point)
        if key not in seen:
            seen.add(key)
            yield point


def grid_size(search: Search) -> int:
    """Returns how many combinations there are at most, conditions not counted."""
    return math.prod(len(each.values) for each in search.values())


def one_at_a_time(search: Search, base: Mapping[str, Any]) -> Iterator[Point]:
    """Yields points in which every choice and every end of a range stands at least once."""
    first = {name: each.values[0] for name, each in search.items()}
    yield active(search, first, base)
    for name, each in search.items():
        for value in each.values[1:]:
            for start in _where_it_counts(search, name, first):
                yield active(search, {**start, name: value}, base)


def _where_it_counts(search: Search, name: str, first: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields raw points that may fulfil the condition of a field, the usual one among them."""
    others = [other for other in search if any(_covers(other, wanted) for wanted in search[name].when)]
    if not others:
        yield first
        return
    for values in itertools.product(*(search[other].values for other in others)):
        yield {**first, **dict(zip(others, values, strict=True))}


def _covers(section: str, field: str) -> bool:
    return field == section or field.startswith(f"{section}.")


def _look_up(field: str, point: Mapping[str, Any], base: Mapping[str, Any]) -> Any:
    """Returns what a dotted field is where these values are set over these fields; None where it is not there."""
    places: list[tuple[str, Any]] = [("", base), *point.items()]
    found: Any = None
    for section, value in places:
        if section == field:
            found = value
        elif section == "" or _covers(section, field):
            rest = field if section == "" else field.removeprefix(f"{section}.")
            found = _down(value, rest.split("."))
    return found


def _down(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list | tuple) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _is_one_of(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list | tuple) else bool(value == wanted)


__all__ = ["Dimension", "Point", "Search", "active", "draw", "grid", "grid_size", "in_order", "one_at_a_time"]
