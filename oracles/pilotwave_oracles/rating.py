"""A rating and its reason out of what a language model wrote: strictly where it kept to JSON, carefully elsewhere.

May import the standard library.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_OUT_OF = r"(?:\s*(?:/|out\s+of)\s*(\d+))?"
_WORDS = re.compile(
    rf"\b(?:score|rating|rate)\b[\"'*_`]*\s*(?:=|:|\bis\b|\bof\b)[\s(\"'*_`]*({_NUMBER}){_OUT_OF}(?![\d.]*\d)",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"[\s*_`\"'(]*({_NUMBER}){_OUT_OF}[\s*_`\"').]*")
_REASON = re.compile(r"\breason\b[\"'*_`]*\s*[=:]\s*(.*)", re.IGNORECASE | re.DOTALL)
_MARKUP = " \t\r\n*_`#>\"'([{"


class MalformedRatingError(Exception):
    """No rating can be read off the text without guessing."""


@dataclass(frozen=True)
class Rating:
    """What a judge said.

    Attributes:
        value: On the scale.
        reason: In its words, on one line; "" if it gave none.
    """

    value: float
    reason: str


def rating_schema(lowest: int, highest: int) -> dict[str, Any]:
    """Returns the JSON Schema of an answer: the reason first, so that it is thought of before the rating."""
    return {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "rating": {"type": "integer", "enum": list(range(lowest, highest + 1))},
        },
        "required": ["reason", "rating"],
        "additionalProperties": False,
    }


def read_rating(text: str, lowest: int, highest: int) -> Rating:
    """Reads a rating.

    A JSON object with ``rating`` (or ``score``) counts, wherever it stands. Without one the text must be a number,
    begin with ``Score=4`` or the like, or name one rating only: a text that quotes another is not guessed at.

    Args:
        text: What the model wrote.
        lowest: Of the scale.
        highest: Of the scale.

    Raises:
        MalformedRatingError: There is none, there are several, or it is off the scale.
    """
    found = _from_json(text)
    value, reason = found if found is not None else _from_words(text, highest)
    if not lowest <= value <= highest:
        raise MalformedRatingError(f"expected a rating from {lowest} to {highest}, got {value:g}")
    return Rating(value, " ".join(reason.split()))


def _from_json(text: str) -> tuple[float, str] | None:
    """Returns the rating of the one object that has any; another object that contradicts it makes both useless."""
    ratings = []
    without_number = False
    for found in _objects(text):
        fields = {str(key).strip().lower(): value for key, value in found.items()}
        value = _number(fields.get("rating", fields.get("score")))
        without_number |= value is None and ("rating" in fields or "score" in fields)
        if value is not None:
            reason = fields.get("reason", fields.get("explanation", ""))
            ratings.append((value, reason if isinstance(reason, str) else json.dumps(reason)))
    if len({value for value, _ in ratings}) > 1:
        raise MalformedRatingError("expected one rating, got several that differ")
    if without_number and not ratings:
        raise MalformedRatingError("expected one rating, got none that is a number")
    return ratings[0] if ratings else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    place = text.find("{")
    while place >= 0:
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if isinstance(found, dict):
                yield found
        place = text.find("{", end)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        match = _ALONE.fullmatch(value)
        value = float(match.group(1)) if match else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def _from_words(text: str, highest: int) -> tuple[float, str]:
    reason = _REASON.search(text)
    words = reason.group(1).lstrip(" *_`\"'") if reason else ""
    alone = _ALONE.fullmatch(text)
    if alone:
        return _on_scale(alone, highest), ""
    matches = list(_WORDS.finditer(text))
    if matches and not text[: matches[0].start()].strip(_MARKUP):
        return _on_scale(matches[0], highest), words
    values = {_on_scale(match, highest) for match in matches}
    if len(values) != 1:
        raise MalformedRatingError("expected one rating, got " + ("several that differ" if values else "none"))
    return values.pop(), words


def _on_scale(match: re.Match[str], highest: int) -> float:
    if match.group(2) is not None and int(match.group(2)[:9]) != highest:
        raise MalformedRatingError(f"expected a rating out of {highest}, got {match.group(0).strip()!r:.40}")
    return float(match.group(1))


__all__ = ["MalformedRatingError", "Rating", "rating_schema", "read_rating"]
