"""How good a number is, from 0 to 1: the way to say "between", and the currency in which properties are combined.

G. Derringer and R. Suich, "Simultaneous optimization of several response variables", J. Quality Technology 12,
214 (1980). May import pydantic.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Desirability(BaseModel):
    """1 inside the window, falling to 0 over the margin outside of it: ((margin - distance) / margin)^exponent.

    ``low`` alone: larger is better, up to ``low``. ``high`` alone: smaller is better. Both: between; equal: a
    target. In Derringer and Suich's letters L = low - margin, T = low, and r = exponent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: float | None = Field(None, description="Values from here up are fully desirable; null: no lower end.")
    high: float | None = Field(None, description="Values up to here are fully desirable; null: no upper end.")
    margin: float = Field(
        gt=0,
        description="How far outside the window the desirability reaches 0, in the value's unit. Beyond it "
        "candidates are all alike to the algorithm: choose it wide enough to cover what the model draws.",
    )
    exponent: float = Field(
        1.0,
        gt=0,
        le=100,
        description="How the desirability falls over the margin: 1 straight, above 1 steeply near the window, "
        "below 1 steeply far from it.",
    )

    @model_validator(mode="after")
    def _is_a_window(self) -> Desirability:
        if self.low is None and self.high is None:
            raise ValueError("expected low, high or both; got neither")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"expected low up to high, got low: {self.low:g} and high: {self.high:g}")
        return self

    def distance(self, value: float) -> float:
        """Returns how far a value lies outside the window, in its unit; 0 inside."""
        below = 0.0 if self.low is None else self.low - value
        above = 0.0 if self.high is None else value - self.high
        return max(0.0, below, above)

    def of(self, value: float) -> float:
        """Returns the desirability of a value, 0 to 1."""
        return float(max(0.0, 1.0 - self.distance(value) / self.margin) ** self.exponent)

    def tolerance(self, value: float, spread: float) -> float:
        """Returns how far the desirability may be off where a value may be by ``spread``."""
        around = [self.of(value - spread), self.of(value), self.of(value + spread)]
        return max(around) - min(around) + 1e-9

    def __str__(self) -> str:
        low, high = ("" if end is None else format(end, "g") for end in (self.low, self.high))
        return f"within {low}..{high}, margin {self.margin:g}, exponent {self.exponent:g}"


__all__ = ["Desirability"]
