"""What MLflow calls to load learned guidance: ``mlflow.pyfunc.load_model(uri).predict({"n": 8, "seed": 0})``.

May import :mod:`pilotwave.execution`, inside functions: this alone of tracking stands above the loop, because what
it loads generates. It does not import mlflow; pandas comes with it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pilotwave.errors import InputError
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample

if TYPE_CHECKING:
    from pilotwave.execution.guidance import Guidance

DEFAULT_COUNT = 16
_KNOWN = ("n", "seed", "constraints", "conditions")


def _load_pyfunc(path: str) -> GuidanceModel:  # the name is MLflow's
    """Loads a model folder for MLflow."""
    return GuidanceModel(Path(path))


class GuidanceModel:
    """Learned guidance behind MLflow's interface.

    Args:
        folder: See :mod:`pilotwave.execution.learned_model`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Guidance] = {}
        self._guidance("{}")  # what is wrong with the folder is said when it is loaded

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Makes samples.

        Args:
            model_input: ``{"n": 8, "seed": 0}``, or a table with these columns, a request in each row. Further
                ones: ``constraints`` (true by default) and ``conditions``, e.g. ``{"classes": ["sneaker"]}`` or
                the same as JSON.
            params: The same by another way.

        Returns:
            A pandas table, a row for each sample: ``request`` (the row that asked), ``index``, ``label``,
            ``predicted`` (in the oracle's unit), ``seed``, and ``mol_block``, ``png`` (bytes) or ``array`` (nested
            lists).

        Raises:
            InputError: Something else was asked.
        """
        import pandas  # type: ignore[import-untyped]

        rows: list[dict[str, Any]] = []
        for number, request in enumerate(_requests(model_input, params or {})):
            guidance = self._guidance(_conditions(request.get("conditions")))
            made = guidance.generate(
                _whole(request.get("n", DEFAULT_COUNT), "n", 1),
                seed=_whole(request.get("seed", 0), "seed", 0),
                constraints=bool(request.get("constraints", True)),
            )
            for item in made:
                said = {"request": number, "index": item.index, "label": item.label}
                rows.append({**said, "predicted": item.predicted, "seed": item.seed, **_content(item.sample)})
        return pandas.DataFrame(rows)

    def _guidance(self, conditions: str) -> Guidance:
        from pilotwave.execution.guidance import Guidance

        if conditions not in self._open:
            self._open[conditions] = Guidance.open(self._folder, conditions=json.loads(conditions), device="auto")
        return self._open[conditions]


def _requests(model_input: Any, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is asked, a dict for each row."""
    if model_input is None:
        rows: list[Mapping[str, Any]] = [{}]
    elif hasattr(model_input, "to_dict") and hasattr(model_input, "columns"):
        rows = model_input.to_dict(orient="records")
    elif isinstance(model_input, Mapping):
        rows = [model_input]
    elif isinstance(model_input, list) and all(isinstance(row, Mapping) for row in model_input):
        rows = list(model_input)
    else:
        raise InputError(f"expected {{'n': 8, 'seed': 0}}, got {type(model_input).__name__}")
    for row in rows:
        unknown = sorted(set(row) - set(_KNOWN))
        if unknown:
            raise InputError(f"expected {', '.join(_KNOWN)}, got {', '.join(map(repr, unknown))}")
    return [{key: value for key, value in {**params, **row}.items() if not _is_missing(value)} for row in rows]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _whole(value: Any, name: str, least: int) -> int:
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or number != int(number) or number < least:
        raise InputError(f"{name}: expected a whole number, {least} or more, got {value!r}")
    return int(number)


def _conditions(value: Any) -> str:
    """Conditions as JSON with sorted keys."""
    if value is None:
        return "{}"
    try:
        fields = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        fields = None
    if not isinstance(fields, Mapping):
        raise InputError(f"conditions: expected e.g. {{'classes': ['sneaker']}}, got {value!r}")
    return json.dumps(dict(fields), sort_keys=True)


def _content(sample: Sample) -> dict[str, Any]:
    if isinstance(sample, MoleculeSample):
        return {"mol_block": sample.mol_block}
    if isinstance(sample, ImageSample):
        return {"png": _png(sample)}
    return {"array": sample.array.tolist()} if isinstance(sample, ArraySample) else {}


def _png(sample: ImageSample) -> bytes:
    from PIL import Image

    pixels = sample.pixels[:, :, 0] if sample.pixels.shape[2] == 1 else sample.pixels
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


__all__ = ["GuidanceModel"]
