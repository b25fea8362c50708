"""Who may come in: the mode is always said; a token comes from the environment or a file, never from a campaign.

Ray's own words are used: ``RAY_AUTH_MODE`` (``token`` or ``disabled``), ``RAY_AUTH_TOKEN``,
``RAY_AUTH_TOKEN_PATH``, else ``~/.ray/auth_token``. It is said before Ray is imported. May import the standard
library and the core.
"""

from __future__ import annotations

import os
from pathlib import Path

from pilotwave.errors import InputError

MODE = "RAY_AUTH_MODE"
HOW_TO = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it, or put it in ~/.ray/auth_token"


def say_mode(address: str) -> str:
    """Sets ``RAY_AUTH_MODE`` unless the user did, and returns it.

    A head would turn tokens on by itself and then refuse its own second node, so nothing is left to defaults:
    ``disabled`` for the private cluster that this process starts for itself, ``token`` for every other.

    Args:
        address: ``"local"`` or that of a cluster.

    Raises:
        InputError: The mode is none of Ray's.
    """
    mode = os.environ.setdefault(MODE, "disabled" if address == "local" else "token").lower()
    if mode not in ("token", "disabled"):
        raise InputError(f"{MODE}: expected token or disabled, got {os.environ[MODE]!r}")
    return mode


def token_for(address: str) -> str | None:
    """Returns the token to show to a cluster, or None if it wants none.

    Raises:
        InputError: One is needed and there is none, or its file cannot be read.
    """
    if say_mode(address) == "disabled":
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if named:
            reason = getattr(error, "strerror", None) or "no text"
            raise InputError(f"RAY_AUTH_TOKEN_PATH: {path} cannot be read: {reason}; {HOW_TO}") from None
        token = ""
    if not token:
        raise InputError(
            f"the cluster at {address} wants a token and there is none: {HOW_TO}; for a cluster without tokens "
            f"set {MODE}=disabled"
        )
    return token


def refused(address: str, token: str | None) -> InputError:
    """Returns the one line for a cluster that does not let us in."""
    if token is None:
        return InputError(
            f"the cluster at {address} wants a token, but {MODE} is disabled: set it to token and {HOW_TO}"
        )
    return InputError(
        f"the cluster at {address} refuses the token that was found; take the one that the cluster was "
        f"started with: {HOW_TO}"
    )


__all__ = ["refused", "say_mode", "token_for"]
