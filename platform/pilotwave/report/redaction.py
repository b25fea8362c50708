"""Takes secrets out of text that is to be kept: what an oracle or a library says may hold a token.

May import the standard library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

HIDDEN = "***"
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH", re.I)
_SHORTEST = 6
"""A shorter value of an environment variable is more likely a word than a secret: hiding it would garble lines."""
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), HIDDEN),
    (
        re.compile(
            r"(?i)([\w-]*(?:token|secret|password|passwd|passphrase|api[_-]?key|access[_-]?key|private[_-]?key)"
            r"[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&)}\]]+"
        ),
        rf"\1{HIDDEN}",
    ),
)


def make_redactor(environment: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Returns a function that hides secrets in a text.

    Hidden are the values of environment variables whose names say that they are secret, what follows words such
    as ``token=`` or ``Authorization: Bearer``, and names and passwords in addresses. The values are read now.

    Args:
        environment: Default: this process's own.
    """
    known = os.environ if environment is None else environment
    values = {value for name, value in known.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    # A path to a secret, or a switch such as RAY_AUTH_MODE=disabled, is none.
    values = {value for value in values if "/" not in value[:2] and value.lower() not in ("disabled", "enabled")}
    longest_first = sorted(values, key=len, reverse=True)
    literal = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def redact(text: str) -> str:
        if literal is not None:
            text = literal.sub(HIDDEN, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    return redact


__all__ = ["HIDDEN", "make_redactor"]
