"""Secrets from environment variables: never in a campaign file, a ledger, a log or a message.

May import pilotwave.errors and the standard library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pilotwave.errors import InputError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_TOO_SHORT_TO_HIDE = 4


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Makes sure that headers name environment variables, e.g. ``{"Authorization": "Bearer ${JUDGE_TOKEN}"}``.

    Raises:
        ValueError: A name is no header's, or a value names no variable.
    """
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"expected the name of a header, got {name!r}")
        if not _VARIABLE.search(value) or "\n" in value or "\r" in value:
            raise ValueError(
                f"expected header {name} to come from the environment, like 'Bearer ${{JUDGE_TOKEN}}'; "
                "what stands in this file is recorded"
            )
    return dict(headers)


@dataclass(frozen=True)
class Secrets:
    """Headers with their values, and what must not be shown.

    Attributes:
        headers: To send.
        hidden: Texts that :meth:`redact` takes out, the longest first.
    """

    headers: Mapping[str, str]
    hidden: tuple[str, ...]

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Secrets:
        """Reads the environment.

        Raises:
            InputError: A variable is not set, empty, or no header may hold what is in it.
        """
        hidden: set[str] = set()
        filled = {}
        for name, template in headers.items():
            values = {variable: _value(variable, name) for variable in _VARIABLE.findall(template)}
            filled[name] = _VARIABLE.sub(lambda match, values=values: values[match.group(1)], template)  # type: ignore[misc]
            hidden |= {filled[name], *values.values()}
        shown = (text for text in hidden if len(text) >= _TOO_SHORT_TO_HIDE)
        return cls(filled, tuple(sorted(shown, key=len, reverse=True)))

    def redact(self, text: str) -> str:
        """Returns the text with every secret taken out: a server may repeat what it was sent."""
        for secret in self.hidden:
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self.headers)})"


def _value(variable: str, header: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise InputError(f"header {header}: expected the environment variable {variable}, but it is not set")
    if not value.isascii() or not value.isprintable():
        raise InputError(f"header {header}: expected one line of printable ASCII in the variable {variable}")
    return value


__all__ = ["Secrets", "check_headers"]
