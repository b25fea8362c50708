"""An oracle made of others (kind ``composite``): sums, products of desirabilities, requirements, cheap gates.

Products: G. Derringer, R. Suich, J. Quality Technology 12, 214 (1980). A part with weight 0 and a requirement makes
the epsilon-constraint method: Y. Haimes, L. Lasdon, D. Wismer, IEEE Trans. Systems, Man, Cybernetics 1, 296 (1971).
May import pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pilotwave.config.components import OracleConfig
from pilotwave.execution.callable_oracle import ALL_MEDIA
from pilotwave.protocols import Oracle
from pilotwave_oracles.composite_part import Part

FAIL = "fail"


class CompositeOracleConfig(OracleConfig):
    """Asks several oracles about each candidate, in the order given, and answers with one number.

    The parts run in one process, one after the other, under the composite's own time limit; where it is left out
    it is the sum of theirs.
    """

    media: ClassVar[frozenset[str]] = ALL_MEDIA
    summary: ClassVar[str] = "Several oracles as one: sums, products of desirabilities, requirements, gates."

    kind: Literal["composite"] = "composite"
    combine: Literal["product", "sum"] = Field(
        description="product: the weighted geometric mean of the parts' desirabilities, 0 to 1, to be maximized; "
        "sum: of the parts' values or, where given, their desirabilities, each times its weight.",
    )
    parts: tuple[Part, ...] = Field(
        min_length=1, max_length=50, description="The oracles, the cheap ones first: a part can spare the next."
    )
    unmet: float | Literal["fail"] | None = Field(
        None,
        description="What is answered if a requirement is not met: a number (worse than any real answer), or fail: "
        "the evaluation fails, and counts as a failure. Has to be said if any part has require.",
    )
    stop_at_zero: bool = Field(
        True, description="In a product, whether the parts after one whose desirability is 0 are spared."
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> CompositeOracleConfig:
        names = [part.name for part in self.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected every part to have a name of its own, got {', '.join(twice)} twice")
        if not self.accepted_media():
            kinds = "; ".join(
                f"{part.name}: {', '.join(sorted(part.oracle.accepted_media()))}" for part in self.parts
            )
            raise ValueError(f"expected parts that take the same kind of sample, got {kinds}")
        if all(part.weight == 0 for part in self.parts):
            raise ValueError("expected at least one part with a weight other than 0")
        if self.unmet is None and (gates := [part.name for part in self.parts if part.require]):
            raise ValueError(
                f"part {gates[0]} has require; say what is answered if it is not met: unmet: a number, or "
                "unmet: fail"
            )
        if self.combine == "product":
            self._check_product()
        return self

    def _check_product(self) -> None:
        for part in self.parts:
            if part.weight < 0:
                raise ValueError(
                    f"part {part.name}: expected a weight of at least 0 in a product, got {part.weight:g}"
                )
            if part.weight > 0 and part.desirability is None and not self._answers_with_a_desirability(part):
                raise ValueError(
                    f"part {part.name}: a product needs its desirability, e.g. "
                    "desirability: {low: 3, high: 5, margin: 2}, or weight: 0"
                )

    @staticmethod
    def _answers_with_a_desirability(part: Part) -> bool:
        # its value lies between 0 and 1, which is checked at every answer
        return part.oracle.only_direction() == "maximize"

    @model_validator(mode="after")
    def _take_the_parts_limits(self) -> CompositeOracleConfig:
        # frozen for everybody else; a limit that was worked out is written down like one that was given
        if "time_limit" not in self.model_fields_set:
            object.__setattr__(self, "time_limit", float(sum(part.oracle.longest for part in self.parts)))
        recycled = [part.oracle.recycle_after for part in self.parts if part.oracle.recycle_after is not None]
        if "recycle_after" not in self.model_fields_set and recycled:
            object.__setattr__(self, "recycle_after", min(recycled))
        return self

    def accepted_media(self) -> frozenset[str]:
        """Returns the kinds of sample that every part takes."""
        return frozenset.intersection(*(part.oracle.accepted_media() for part in self.parts))

    def only_direction(self) -> Literal["maximize"] | None:
        """Returns ``"maximize"`` for a product, which is a desirability."""
        return "maximize" if self.combine == "product" else None

    def missing_packages(self) -> list[str]:
        """Returns what any part needs and lacks."""
        return list(dict.fromkeys(name for part in self.parts for name in part.oracle.missing_packages()))

    def build(self) -> Oracle:
        """Builds every part.

        Raises:
            PilotwaveError: A part could not be built; the message begins with its name.
        """
        from pilotwave_oracles.composite_oracle import CompositeOracle

        return CompositeOracle(self)


__all__ = ["CompositeOracleConfig"]
