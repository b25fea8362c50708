"""Finds every backbone, oracle, constraint, algorithm, runtime and tracker through entry points.

Ours and a third party's are found in the same way. May import :mod:`pilotwave.config.components` and
:mod:`pilotwave.errors` only.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from pilotwave.config.components import CONFIG_BASES, GROUPS, ComponentConfig
from pilotwave.errors import ConfigError


@functools.cache
def choices(section: str) -> Mapping[str, EntryPoint]:
    """Returns the entry points that may stand in a section of a campaign file, by kind, sorted.

    Args:
        section: A key of :data:`pilotwave.config.components.GROUPS`, e.g. ``"oracle"``.
    """
    found = {point.name: point for point in entry_points(group=GROUPS[section])}
    return dict(sorted(found.items()))


@functools.cache
def load(section: str, kind: str) -> type[ComponentConfig]:
    """Returns the configuration class of a kind.

    Raises:
        ConfigError: No such kind (the nearest name is suggested), or its plug-in cannot be imported.
    """
    known = choices(section)
    if kind not in known:
        raise ConfigError(f"unknown kind {kind!r}{suggestion(kind, known)}; expected one of {', '.join(known)}")
    point = known[kind]
    try:
        config = point.load()
    except Exception as error:
        raise ConfigError(
            f"the plug-in of kind {kind!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(config, type) and issubclass(config, CONFIG_BASES[section])):
        base = CONFIG_BASES[section].__name__
        raise ConfigError(
            f"the plug-in of kind {kind!r} ({point.value}) must be a subclass of {base}, got {config!r}"
        )
    return config


@functools.cache
def available(section: str) -> tuple[type[ComponentConfig], ...]:
    """Returns the configuration classes of all kinds whose plug-in can be imported."""
    classes = []
    for kind in choices(section):
        try:
            classes.append(load(section, kind))
        except ConfigError:
            continue  # said when the kind is chosen, and by `pilotwave doctor`
    return tuple(classes)


def suggestion(word: str, known: Mapping[str, object]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


__all__ = ["available", "choices", "load", "suggestion"]
