"""The files of a new oracle's package. Each example judges something simple, so that its tests pass from the start.

May import the standard library and pilotwave's version.
"""

from __future__ import annotations

from string import Template

from pilotwave import __version__

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "pilotwave-oracle-$name"
version = "0.1.0"
description = "The oracle $name for pilotwave."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["numpy", "pilotwave$wanted"]

[project.optional-dependencies]
test = ["pytest"]

# This line is all it takes: `kind: $name` in a campaign file finds the class.
[project.entry-points."pilotwave.oracles"]
$name = "$package.oracle:$config"

[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_README = """\
# $name

An oracle for pilotwave: judges $media samples.

```yaml
oracle:
  kind: $name
  scale: 1.0
```

| | |
|---|---|
| what it measures | $measures |
| unit | $unit |
| direction | either |
| cost | 1 a question; well under a millisecond |
| failures | `media`: no $media; `$stage`: $fails |

```
python -m pip install -e ".[test]"
python -m pytest                            # the contract that every oracle keeps, and your own tests
pilotwave oracle test $name
pilotwave oracle evaluate $name $file
```

Where to go from here, in `src/$package/oracle.py`:
- `evaluate` answers one question. Raise `OracleFailure(message, stage=..., retryable=...)` for a sample that
  cannot be judged: a failure is never zero. It runs in a process of its own that may hang, crash and print.
- Import heavy packages in `build` or later, and name them in `packages`: all oracles are imported to read a
  campaign file.
- Change `version` whenever the same sample could get another value; put the versions of your tools into it.
- `known_answer` is asked before the first paid query. Choose a sample whose value you know from elsewhere.
"""

_ORACLE = '''\
"""The oracle $name: $measures."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pilotwave.config.components import OracleConfig
from pilotwave.errors import OracleFailure
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import $sample, Sample
from pilotwave.types import Answer
from pydantic import Field


class $config(OracleConfig):
    """What a campaign file may say under ``kind: $name``; time limits and the like come with the base."""

    media: ClassVar[frozenset[str]] = frozenset({"$media"})
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    summary: ClassVar[str] = "$summary"

    kind: Literal["$name"] = "$name"
    scale: float = Field(1.0, gt=0, description="What the value is multiplied by.")

    def build(self) -> Oracle:
        """Builds the oracle in the process that will ask it; import heavy packages here."""
        self.check_dependencies()
        return $oracle(self)


class $oracle:
    """See :class:`$config` and :class:`pilotwave.protocols.Oracle`."""

    name = "$name"
    unit = "$unit"
    media = frozenset({"$media"})
    deterministic = True

    def __init__(self, config: $config) -> None:
        self._config = config
        self.version = f"1, scale {config.scale:g}"

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Answers one question; ``context.query_id`` is the idempotency key to pass on to a paid service.

        Raises:
            OracleFailure: Stage ``"media"``: no $media; ``"$stage"``: $fails.
        """
        if not isinstance(sample, $sample):
            raise OracleFailure(f"expected a $media sample, got {sample.media}", stage="media")
$body
    def known_answer(self) -> KnownAnswer:
        """Returns a question whose answer is known, for the preflight."""
$known

${helpers}__all__ = ["$oracle", "$config"]
'''

_TESTS = '''\
"""The oracle keeps pilotwave's contract, and says what it should."""

import pytest
from pilotwave.errors import OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import Sample
from pilotwave.testing.oracle_contract import OracleContract, garbage_of
from $package.oracle import $config


class TestContract(OracleContract):
    """Inherits every test of the contract."""

    def config(self) -> $config:
        return $config()

    def samples(self) -> list[Sample]:
        """Returns samples that must be answered; add some of your own."""
        return [$config().build().known_answer().sample]


def test_the_scale_is_applied() -> None:
    sample = $config().build().known_answer().sample
    once = $config().build().evaluate(sample, QueryContext("q")).value
    twice = $config(scale=2.0).build().evaluate(sample, QueryContext("q")).value
    assert twice == pytest.approx(2.0 * once)


def test_what_cannot_be_judged_is_a_failure_and_no_zero() -> None:
    with pytest.raises(OracleFailure) as caught:
        $config().build().evaluate(garbage_of("$media")[0], QueryContext("q"))
    assert caught.value.stage == "$stage"
'''

_MEDIA: dict[str, dict[str, str]] = {
    "molecule": {
        "sample": "MoleculeSample",
        "measures": "the largest distance between two atoms",
        "summary": "The largest distance between two atoms.",
        "unit": "Å",
        "stage": "parse",
        "fails": "a mol block without coordinates of atoms",
        "file": "molecules.sdf",
        "body": """\
        positions = _positions(sample.mol_block)
        distances = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
        return Answer(self._config.scale * float(distances.max()), {"atoms": float(len(positions))})
""",
        "known": """\
        return KnownAnswer(MoleculeSample(HYDROGEN, "[H][H]"), self._config.scale * 0.74, tolerance=1e-6)
""",
        "helpers": '''\
HYDROGEN = """hydrogen

  by hand
  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 H   0  0
    0.0000    0.0000    0.7400 H   0  0
  1  2  1  0
M  END
"""


def _positions(mol_block: str) -> np.ndarray:
    """Returns the coordinates of a V2000 mol block, Å, shape (atoms, 3)."""
    lines = mol_block.splitlines()
    try:
        rows = [[float(number) for number in line.split()[:3]] for line in lines[4 : 4 + int(lines[3][:3])]]
        positions = np.array(rows).reshape(-1, 3)
    except (ValueError, IndexError) as error:
        raise OracleFailure("expected a V2000 mol block", stage="parse") from error
    if len(positions) == 0 or not np.isfinite(positions).all():
        raise OracleFailure("expected atoms with finite coordinates", stage="parse")
    return positions


''',
    },
    "image": {
        "sample": "ImageSample",
        "measures": "the mean brightness of the image",
        "summary": "The mean brightness of the image, 0 to 255.",
        "unit": "",
        "stage": "measure",
        "fails": "an image without pixels",
        "file": "pictures/",
        "body": """\
        if sample.pixels.size == 0:
            raise OracleFailure("expected an image with pixels", stage="measure")
        return Answer(self._config.scale * float(sample.pixels[:, :, :3].mean()))
""",
        "known": """\
        grey = ImageSample(np.full((4, 4, 1), 100, dtype=np.uint8))
        return KnownAnswer(grey, self._config.scale * 100.0, tolerance=1e-6)
""",
        "helpers": "",
    },
    "array": {
        "sample": "ArraySample",
        "measures": "the sum of squares of the numbers",
        "summary": "The sum of squares.",
        "unit": "",
        "stage": "measure",
        "fails": "an array that is empty or not finite",
        "file": "arrays.csv",
        "body": """\
        if sample.array.size == 0 or not np.isfinite(sample.array).all():
            raise OracleFailure("expected finite numbers", stage="measure")
        return Answer(self._config.scale * float(np.square(sample.array, dtype=np.float64).sum()))
""",
        "known": """\
        sample = ArraySample(np.array([3.0, 4.0], dtype=np.float32))
        return KnownAnswer(sample, self._config.scale * 25.0, tolerance=1e-6)
""",
        "helpers": "",
    },
}


def files_of(name: str, media: str) -> dict[str, str]:
    """Returns the texts of a new oracle's package by their paths.

    Args:
        name: In lower case with hyphens, e.g. ``"melting-point"``.
        media: ``"molecule"``, ``"image"`` or ``"array"``.
    """
    words = [word.capitalize() for word in name.split("-")]
    package = f"pilotwave_oracle_{name.replace('-', '_')}"
    names = {
        "name": name,
        "media": media,
        "package": package,
        "oracle": f"{''.join(words)}Oracle",
        "config": f"{''.join(words)}OracleConfig",
        "wanted": "" if __version__ == "0.0.0" else f">={__version__}",
        **_MEDIA[media],
    }
    texts = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"src/{package}/__init__.py": '"""The oracle $name for pilotwave."""\n',
        f"src/{package}/oracle.py": _ORACLE,
        f"src/{package}/py.typed": "",
        "tests/test_oracle.py": _TESTS,
    }
    return {place: Template(text).substitute(names) for place, text in texts.items()}


__all__ = ["files_of"]
