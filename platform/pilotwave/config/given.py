"""Choices that are given as Python objects rather than named in a file: for :func:`pilotwave.optimize`.

They cannot be written to YAML, so a campaign that uses them is resumed by the same call in Python, not by
``pilotwave resume``. May import :mod:`pilotwave.config.components` and :mod:`pilotwave.protocols`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from pilotwave.config.components import BackboneConfig, OracleConfig
from pilotwave.protocols import Backbone, Oracle


class GivenBackboneConfig(BackboneConfig):
    """A backbone that exists already."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: Literal["given"] = "given"
    fingerprint: str
    backbone: Any = Field(exclude=True)

    @classmethod
    def of(cls, backbone: Backbone) -> GivenBackboneConfig:
        """Wraps a backbone."""
        return cls(fingerprint=backbone.fingerprint, backbone=backbone)

    @property
    def media(self) -> str:  # type: ignore[override]
        return str(self.backbone.media)

    def build(self, device: str = "auto") -> Backbone:
        return self.backbone  # type: ignore[no-any-return]


class GivenOracleConfig(OracleConfig):
    """An oracle that exists already; asked in a thread, since it may not pickle."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: Literal["given"] = "given"
    isolation: Literal["process", "thread"] = "thread"
    name: str
    version: str
    oracle: Any = Field(exclude=True)

    @classmethod
    def of(cls, oracle: Oracle) -> GivenOracleConfig:
        """Wraps an oracle."""
        return cls(name=oracle.name, version=oracle.version, oracle=oracle)

    @property
    def media(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(self.oracle.media)

    def build(self) -> Oracle:
        return self.oracle  # type: ignore[no-any-return]


__all__ = ["GivenBackboneConfig", "GivenOracleConfig"]
