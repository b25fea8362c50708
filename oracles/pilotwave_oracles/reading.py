"""How a number is found in what a program wrote: by a regular expression or by a path into its JSON.

May import pydantic and pilotwave.errors.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pilotwave.errors import OracleFailure

STAGE = "output"
"""The stage of a failure to find a number."""

_STEP = re.compile(r"""\.?([A-Za-z_][A-Za-z0-9_-]*)|\[(-?\d{1,9})\]|\[("(?:[^"\\]|\\.)*")\]""")

Step = str | int


class Reading(BaseModel):
    """Where a number stands: exactly one of ``pattern`` and ``path``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str | None = Field(
        None,
        description=r"A regular expression (Python's, ^ and $ at every line) with one group around the number, "
        r"e.g. 'TOTAL ENERGY\s+(\S+)'; without a group the whole match is the number.",
    )
    path: str | None = Field(
        None,
        description="""A path into JSON, e.g. scores[0].value, or ["a key"][-1] for other keys and the last.""",
    )
    file: str = Field(
        "stdout",
        min_length=1,
        description="What is searched: stdout, stderr, or a file that the program wrote into its folder.",
    )
    match: Literal["first", "last"] = Field("last", description="Which match of the pattern counts.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None and compiled(pattern).groups > 1:
            raise ValueError("expected a pattern with at most one group; write other groups as (?:…)")
        return pattern

    @field_validator("path")
    @classmethod
    def _parses(cls, path: str | None) -> str | None:
        if path is not None:
            parse_path(path)
        return path

    @field_validator("file")
    @classmethod
    def _stays_inside(cls, file: str) -> str:
        return plain_file_name(file)

    @model_validator(mode="after")
    def _one_way(self) -> Reading:
        if (self.pattern is None) == (self.path is None):
            raise ValueError("expected exactly one of pattern and path")
        return self

    def find(self, text: str) -> float:
        """Returns the number.

        Raises:
            OracleFailure: Stage ``"output"``: it is not there or no finite number.
        """
        if self.pattern is not None:
            return as_number(self._matched(text), f"what {self.pattern!r} matches in {self.file}")
        assert self.path is not None
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OracleFailure(
                f"expected JSON in {self.file}: {error}; got {_shown(text)}", stage=STAGE
            ) from error
        return as_number(follow(fields, self.path, self.file), f"{self.path} in {self.file}")

    def _matched(self, text: str) -> str:
        assert self.pattern is not None
        matches = compiled(self.pattern).finditer(text)
        found = next(matches, None)
        if found is None:
            raise OracleFailure(f"nothing in {self.file} matches {self.pattern!r}", stage=STAGE)
        if self.match == "last":
            for later in matches:
                found = later
        return str(found.group(found.re.groups) or "")


def plain_file_name(name: str) -> str:
    """Returns the name of a file in a program's own folder.

    Raises:
        ValueError: It leads elsewhere.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"expected the name of a file inside the program's folder, got {name!r}")
    return name


def compiled(pattern: str) -> re.Pattern[str]:
    """Compiles a pattern; a ValueError says what is wrong with it."""
    try:
        return re.compile(pattern, re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a regular expression, got {pattern!r}: {error}") from error


def parse_path(path: str) -> list[Step]:
    """Returns the keys and indices of a path; a leading ``$`` is allowed.

    Raises:
        ValueError: It is no path.
    """
    steps: list[Step] = []
    place = 1 if path.startswith("$") else 0
    while place < len(path):
        step = _STEP.match(path, place)
        if step is None:
            raise ValueError(f"expected a path like scores[0].value, got {path!r}")
        key, index, quoted = step.groups()
        steps.append(key if key is not None else int(index) if index is not None else json.loads(quoted))
        place = step.end()
    return steps


def follow(fields: Any, path: str, source: str) -> Any:
    """Follows a path into JSON.

    Raises:
        OracleFailure: Stage ``"output"``: it leads nowhere; the message says where it ends.
    """
    gone: list[Step] = []
    for step in parse_path(path):
        try:
            if isinstance(step, str) is not isinstance(fields, dict) or isinstance(fields, str):
                raise TypeError
            fields = fields[step]
        except (KeyError, IndexError, TypeError):
            where = f" after {gone!r}" if gone else ""
            raise OracleFailure(
                f"{path} leads nowhere in {source}: no {step!r}{where}, but {_shown(json.dumps(fields))}",
                stage=STAGE,
            ) from None
        gone.append(step)
    return fields


def as_number(found: object, what: str) -> float:
    """Returns a finite number; text may use Fortran's D for the exponent.

    Raises:
        OracleFailure: Stage ``"output"``.
    """
    number = math.nan
    try:
        if isinstance(found, str):
            number = float(re.sub(r"(?<=[\d.])[dD](?=[+-]?\d+\s*$)", "e", found))
        elif isinstance(found, int | float) and not isinstance(found, bool):
            number = float(found)
    except (ValueError, OverflowError):
        pass
    if not math.isfinite(number):
        raise OracleFailure(f"expected a finite number as {what}, got {_shown(repr(found))}", stage=STAGE)
    return number


def _shown(text: str) -> str:
    line = " ".join(text[:400].split())
    return line if len(line) <= 80 else f"{line[:79]}…"


__all__ = ["STAGE", "Reading", "as_number", "compiled", "follow", "parse_path", "plain_file_name"]
