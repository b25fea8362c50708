"""A method of the comparison: an installed kind of algorithm with its settings, and what tables call it.

May import pydantic, PyYAML, :mod:`pilotwave.config` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError

from pilotwave.config import registry
from pilotwave.config.components import AlgorithmConfig
from pilotwave.errors import ConfigError, InputError


@dataclass(frozen=True)
class Method:
    """An algorithm with settings.

    Attributes:
        kind: Of algorithm.
        settings: Its keys in a campaign file; what is left out has its default.
        label: In tables and folders; the kind unless the user says otherwise.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """The label, or the kind."""
        return self.label or self.kind

    def config(self) -> AlgorithmConfig:
        """Returns the checked configuration.

        Raises:
            InputError: There is no such kind, it has no such setting, or it needs a package that is missing.
        """
        config_class = registry.load("algorithm", self.kind)
        try:
            config = config_class.model_validate({"kind": self.kind, **self.settings})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            near = registry.suggestion(key, config_class.model_fields) if first["type"] == "extra_forbidden" else ""
            message = " ".join(first["msg"].split()).removeprefix("Value error, ")
            raise ConfigError(f"method {self.name}: {key}: {message}{near}") from None
        config.check_dependencies()
        assert isinstance(config, AlgorithmConfig)
        return config


def parse_method(text: str) -> Method:
    """Reads ``kind``, ``kind:key=value,key=value`` or ``label=kind:key=value``; values are YAML.

    Raises:
        InputError: It is none of these.
    """
    found = re.fullmatch(r"(?:([A-Za-z0-9][\w.+-]*)=)?([A-Za-z0-9][\w-]*)(?::(.+))?", text.strip())
    if found is None:
        raise InputError(f"--method: expected kind, kind:key=value or label=kind:key=value, got {text!r}")
    label, kind, given = found.groups()
    settings: dict[str, Any] = {}
    for pair in re.split(r",(?=\s*\w+=)", given) if given else []:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise InputError(f"--method {text}: expected key=value after the colon, got {pair!r}")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--method {text}: {key.strip()}: {' '.join(str(error).split())}") from None
    if settings and not label:
        label = re.sub(r"[^\w.+-]+", "-", f"{kind}-{given}").strip("-")
    return Method(kind, settings, label or "")


def digest(value: Any) -> str:
    """Returns 10 hexadecimal digits that change with a JSON-compatible value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:10]


__all__ = ["Method", "digest", "parse_method"]
