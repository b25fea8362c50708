"""Any Python function as an oracle: ``f(sample) -> float`` or ``f(sample) -> Answer``.

May import pilotwave.config, pilotwave.protocols and the standard library.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_serializer

from pilotwave.config.components import OracleConfig
from pilotwave.errors import OracleFailure
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import SAMPLE_TYPES, Sample
from pilotwave.types import Answer

STAGE = "callable"
"""The stage of every failure that the function itself is to blame for."""

ALL_MEDIA = frozenset(SAMPLE_TYPES)

OracleFunction = Callable[..., Any]
"""``f(sample)`` or, if it takes two positional arguments, ``f(sample, context)``."""


class CallableOracle:
    """Wraps a function.

    An exception of the function, and a value that is no finite number, are an OracleFailure with the stage
    ``"callable"``; the function may raise OracleFailure itself to choose stage and ``retryable``. An
    ``OSError`` (network, disk, time-out) is retryable, everything else is not.

    Attributes:
        name: As given, or the function's own name.
        version: As given; change it when the function changes.
        unit: Of the values, for people.
        media: The kinds of sample it accepts.
        deterministic: Whether answers can be reused.
    """

    def __init__(
        self,
        function: OracleFunction,
        *,
        name: str | None = None,
        version: str = "1",
        unit: str = "",
        media: Iterable[str] = ALL_MEDIA,
        deterministic: bool = True,
        known: KnownAnswer | None = None,
    ) -> None:
        """Takes the function as it is.

        Args:
            function: Called as ``function(sample)``, or as ``function(sample, context)`` if it has a second
                positional parameter without a default.
            name: For people and the ledger.
            version: Any text but the empty one.
            unit: Of the values.
            media: The kinds of sample it accepts; all by default.
            deterministic: Whether the same sample always gets the same value.
            known: A question whose answer is known, for the preflight.
        """
        self.name: str = name or getattr(function, "__name__", None) or type(function).__name__
        self.version = version
        self.unit = unit
        self.media = frozenset(media)
        self.deterministic = deterministic
        self._function = function
        self._wants_context = _required_positional(function) >= 2
        self._known = known

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Calls the function.

        Raises:
            OracleFailure: It raised, returned no finite number, or does not take this kind of sample.
        """
        if sample.media not in self.media:
            accepted = ", ".join(sorted(self.media))
            raise OracleFailure(f"{self.name} takes {accepted} samples, got {sample.media}", stage="media")
        arguments = (sample, context) if self._wants_context else (sample,)
        try:
            result = self._function(*arguments)
        except OracleFailure:
            raise
        except Exception as error:
            message = f"{self.name} raised {type(error).__name__}: {error}"
            raise OracleFailure(message, stage=STAGE, retryable=isinstance(error, OSError)) from error
        return self._answer(result)

    def known_answer(self) -> KnownAnswer | None:
        """Returns what was given."""
        return self._known

    def _answer(self, result: object) -> Answer:
        if isinstance(result, Answer):
            return result
        number = _as_number(result)
        if number is None or not math.isfinite(number):
            raise OracleFailure(
                f"{self.name} must return a finite number or an Answer, got {type(result).__name__} {result!r:.80}",
                stage=STAGE,
            )
        return Answer(number)


class CallableOracleConfig(OracleConfig):
    """A live function where a configuration is expected: what ``pilotwave.optimize`` makes of a callable.

    Not for campaign files; those name a function with ``kind: python``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    media: ClassVar[frozenset[str]] = ALL_MEDIA
    summary: ClassVar[str] = "A Python function given in Python."

    kind: Literal["callable"] = "callable"
    isolation: Literal["process", "thread"] = "thread"
    function: OracleFunction = Field(description="f(sample) -> float or Answer.")
    name: str | None = None
    version: str = Field("1", min_length=1)
    unit: str = ""
    deterministic: bool = True

    @field_serializer("function")
    def _name_function(self, function: OracleFunction) -> str:
        return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"

    def build(self) -> Oracle:
        """Wraps the function."""
        return CallableOracle(
            self.function,
            name=self.name,
            version=self.version,
            unit=self.unit,
            deterministic=self.deterministic,
        )


def _required_positional(function: OracleFunction) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(item.kind in positional and item.default is inspect.Parameter.empty for item in parameters)


def _as_number(result: object) -> float | None:
    """Returns a real number, also one of numpy or torch with a single element; None for anything else."""
    try:
        plain = result.item() if hasattr(result, "item") else result
    except (ValueError, RuntimeError):  # more than one element
        return None
    return float(plain) if isinstance(plain, Real) and not isinstance(plain, bool) else None


__all__ = ["ALL_MEDIA", "STAGE", "CallableOracle", "CallableOracleConfig", "OracleFunction"]
