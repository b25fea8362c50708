"""A resolved campaign as the flat, short, plainly named parameters that a tracking server takes.

May import the standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

KEY_LENGTH, VALUE_LENGTH, TAG_LENGTH = 250, 6000, 8000
"""MLflow's limits on the names of parameters, metrics and tags, on values, and on the values of tags."""

_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]*@")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. /:]")


def flatten(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Returns ``{"budget.queries": "320"}`` for ``{"budget": {"queries": 320}}``.

    Lists that hold mappings are numbered (``constraints.0.kind``), other lists are one JSON value. Names are
    made of characters that MLflow allows; what is too long is cut and ends with ``…``.
    """
    return {name_of(key): cut(_text(value), VALUE_LENGTH) for key, value in _leaves("", parameters)}


def name_of(text: str) -> str:
    """Returns a name that MLflow takes for a parameter, a metric or a tag: it normalises names as paths."""
    name = re.sub(r"/+", "/", _NOT_IN_NAMES.sub("_", text)).strip("/")
    name = "/".join("_" * len(part) if part.strip(".") == "" else part for part in name.split("/"))
    return name[:KEY_LENGTH].rstrip("/") or "_"


def cut(text: str, length: int) -> str:
    """Returns the text, cut to a length."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def without_password(text: str) -> str:
    """Returns a text with ``***`` in place of the password of each address in it."""
    return _PASSWORD.sub(r"\1:***@", text)


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        items = list(enumerate(value))
    else:
        yield prefix, value
        return
    for key, item in items:
        yield from _leaves(f"{prefix}.{key}" if prefix else str(key), item)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


__all__ = ["KEY_LENGTH", "TAG_LENGTH", "VALUE_LENGTH", "cut", "flatten", "name_of", "without_password"]
