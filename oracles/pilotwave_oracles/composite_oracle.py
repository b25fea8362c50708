"""The composite oracle at work, see :mod:`pilotwave_oracles.composite` for how it is set.

May import pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field

from pilotwave.errors import InputError, OracleFailure, PreflightError
from pilotwave.execution.question import OracleIdentity, ask, check_known_answer
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import Sample
from pilotwave.types import Answer
from pilotwave_oracles.composite import FAIL, CompositeOracleConfig
from pilotwave_oracles.composite_part import Part


@dataclass
class _Collected:
    """What the parts that were asked so far have said."""

    properties: dict[str, float] = field(default_factory=dict)
    fidelities: list[str] = field(default_factory=list)
    cost: float = 0.0

    def take(self, part: Part, answer: Answer) -> float:
        """Keeps a part's answer; returns what it contributes: its desirability, or its value if it has none."""
        self.cost += answer.cost if part.cost is None else part.cost
        self.fidelities.append(f"{part.name}: {answer.fidelity}")
        self.properties |= {f"{part.name}.{name}": number for name, number in answer.properties.items()}
        self.properties[part.name] = answer.value
        if part.desirability is None:
            return answer.value
        contribution = part.desirability.of(answer.value)
        self.properties[f"{part.name}.desirability"] = contribution
        return contribution

    def answer(self, value: float, stopped_at: str | None = None) -> Answer:
        """Returns the whole's answer; the fidelity says where it was stopped."""
        fidelity = ", ".join(self.fidelities)
        return Answer(value, self.properties, f"stopped at {stopped_at}" if stopped_at else fidelity, self.cost)


class CompositeOracle:
    """See :class:`pilotwave_oracles.composite.CompositeOracleConfig` and :class:`pilotwave.protocols.Oracle`.

    An answer's properties hold each part's value under the part's name, its desirability as ``NAME.desirability``
    and its further properties as ``NAME.PROPERTY``. Its cost is the sum over the parts that were asked.

    Attributes:
        units: Of each part's value, by name; they stand in the oracle's name, too.
    """

    def __init__(self, config: CompositeOracleConfig) -> None:
        self._config = config
        self._parts = [(part, _built(part)) for part in config.parts]
        self.units = {part.name: oracle.unit for part, oracle in self._parts}
        described = (f"{name} ({unit})" if unit else name for name, unit in self.units.items())
        self.name = f"composite:{config.combine} of {', '.join(described)}"
        self.unit = ""
        self.media = frozenset.intersection(*(oracle.media for _, oracle in self._parts))
        self.deterministic = all(oracle.deterministic for _, oracle in self._parts)
        self.version = f"{config.combine} {_digest(config, [oracle for _, oracle in self._parts])}"

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Asks the parts in order.

        Raises:
            OracleFailure: A part failed: its stage with its name before it, ``"gap: scf"``, retryable if it is; or
                a requirement is not met and that was said to be a failure: stage ``"NAME: requirement"``.
        """
        if sample.media not in self.media:
            raise OracleFailure(f"expected {' or '.join(sorted(self.media))}, got {sample.media}", stage="media")
        collected = _Collected()
        contributions: list[float] = []
        for part, oracle in self._parts:
            answer = _asked(part, oracle, sample, context)
            contributions.append(collected.take(part, answer))
            if part.require is not None and (reason := part.require.reason(answer.value)) is not None:
                return self._unmet(part, reason, collected)
            if self._config.combine == "product" and part.weight > 0:
                _check_contribution(part, contributions[-1])
                if contributions[-1] == 0 and self._config.stop_at_zero:
                    return collected.answer(0.0, stopped_at=part.name)
        return collected.answer(self._combined(contributions))

    def known_answer(self) -> KnownAnswer | None:
        """Asks every part its own known question first; then one of these of the whole.

        Raises:
            PreflightError: A part does not give its known answer.
        """
        samples = []
        for part, oracle in self._parts:
            known = oracle.known_answer()
            if known is None:
                continue
            evaluation = ask(oracle, known.sample, QueryContext("preflight"), part.name)
            try:
                check_known_answer(OracleIdentity.of(oracle), known, evaluation)
            except PreflightError as error:
                raise PreflightError(f"part {part.name}: {error}") from error
            samples.append(known.sample)
        return next((KnownAnswer(sample) for sample in samples if self._can_answer(sample)), None)

    def _can_answer(self, sample: Sample) -> bool:
        try:
            self.evaluate(sample, QueryContext("preflight"))
        except OracleFailure:
            return False  # what one part knows need not meet another's requirement
        return True

    def _unmet(self, part: Part, reason: str, collected: _Collected) -> Answer:
        if self._config.unmet == FAIL or self._config.unmet is None:
            raise OracleFailure(f"{part.name} {reason}", stage=f"{part.name}: requirement")
        return collected.answer(float(self._config.unmet), stopped_at=part.name)

    def _combined(self, contributions: list[float]) -> float:
        weights = [part.weight for part, _ in self._parts]
        if self._config.combine == "sum":
            return math.fsum(weight * item for weight, item in zip(weights, contributions, strict=True))
        counted = [(weight, item) for weight, item in zip(weights, contributions, strict=True) if weight > 0]
        if any(item == 0 for _, item in counted):
            return 0.0
        total = math.fsum(weight for weight, _ in counted)
        return math.exp(math.fsum(weight * math.log(item) for weight, item in counted) / total)


def _built(part: Part) -> Oracle:
    try:
        return part.oracle.build()
    except InputError as error:
        raise type(error)(f"part {part.name}: {error}") from error


def _asked(part: Part, oracle: Oracle, sample: Sample, context: QueryContext) -> Answer:
    try:
        return oracle.evaluate(sample, context)
    except OracleFailure as error:
        raise OracleFailure(
            f"{part.name}: {error}", stage=f"{part.name}: {error.stage}", retryable=error.retryable
        ) from error
    except Exception as error:
        retryable = isinstance(error, OSError | MemoryError)  # as for an oracle that stands alone
        message = f"{part.name}: {type(error).__name__}: {error}"
        raise OracleFailure(message, stage=f"{part.name}: oracle", retryable=retryable) from error


def _check_contribution(part: Part, contribution: float) -> None:
    """A nested part answers with a desirability of its own, and with ``unmet`` where a requirement was not met."""
    if not 0 <= contribution <= 1:
        raise OracleFailure(
            f"{part.name}: expected a desirability from 0 to 1 for a product, got {contribution:.6g}",
            stage=f"{part.name}: desirability",
        )


def _digest(config: CompositeOracleConfig, oracles: list[Oracle]) -> str:
    parts = [
        [part.model_dump(mode="json", exclude={"oracle", "cost"}), oracle.name, oracle.version]
        for part, oracle in zip(config.parts, oracles, strict=True)
    ]
    text = json.dumps([config.combine, config.unmet, config.stop_at_zero, parts], sort_keys=True)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


__all__ = ["CompositeOracle"]
