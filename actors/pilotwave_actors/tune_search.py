"""Searchers: our random and grid, or any of Ray Tune's, behind one small interface, rebuilt from a ledger.

A searcher of Tune's sees one flat space; choices are their numbers in it, since not every searcher takes sections.
May import ray and the core.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.tuning.config import Chosen, StudyConfig
from pilotwave.tuning.coordinator import Answer, Suggesting
from pilotwave.tuning.space import Point, draw, grid
from pilotwave_actors.tune_trial import LOSS

KNOWN = {
    "optuna": ("ray.tune.search.optuna:OptunaSearch", "optuna", "optuna"),
    "bayesopt": ("ray.tune.search.bayesopt:BayesOptSearch", "bayes_opt", "bayesian-optimization"),
    "hyperopt": ("ray.tune.search.hyperopt:HyperOptSearch", "hyperopt", "hyperopt"),
}
"""Kind: the class, the package it imports, and what to install."""
DRAWS = 200
"""So many random points in a row that were tried already: there are no others."""
SEEDS = ("seed", "random_state", "random_state_seed", "random_seed")


class Drawing:
    """Random points, each once, or those of a grid."""

    def __init__(self, study: StudyConfig) -> None:
        self._study = study
        self._seen: list[Point] = []

    def suggest(self, number: int) -> Point | Answer:
        study = self._study
        if study.searcher.kind == "grid":
            return next(islice(grid(study.search, study.campaign), number - 1, None), Answer.OVER)
        for attempt in range(DRAWS):
            point = draw(study.search, study.campaign, (study.seed, number, attempt))
            if point not in self._seen:
                self._seen.append(point)
                return point
        return Answer.OVER

    def tell(self, number: int, point: Point, loss: float | None) -> None:
        del number, point, loss

    def replay(self, events: Sequence[Mapping[str, Any]]) -> None:
        self._seen += [event["point"] for event in events if event["kind"] == "suggested"]


class FromTune:
    """One of Tune's searchers, or somebody's own.

    Args:
        study: What is searched.

    Raises:
        InputError: There is no such searcher, or it cannot search this.
    """

    def __init__(self, study: StudyConfig) -> None:
        self._study = study
        self._inner = _make(study)
        self._suggested: dict[int, Point] = {}

    def suggest(self, number: int) -> Point | Answer:
        from ray.tune.search.searcher import Searcher

        found = self._inner.suggest(_id(number))
        if found == Searcher.FINISHED:
            return Answer.OVER
        if found is None:
            return Answer.WAIT
        self._suggested[number] = dict(found)
        return {name: _decoded(self._study, name, found[name]) for name in self._study.search}

    def tell(self, number: int, point: Point, loss: float | None) -> None:
        del point
        if loss is None:
            self._inner.on_trial_complete(_id(number), error=True)
        else:
            self._inner.on_trial_complete(_id(number), result={LOSS: loss})

    def replay(self, events: Sequence[Mapping[str, Any]]) -> None:
        """The same questions give the same points from a searcher with a seed; otherwise it is told of others."""
        points: dict[int, Point] = {}
        strange = set()
        for event in events:
            number = int(event["trial"])
            if event["kind"] == "suggested":
                points[number] = event["point"]
                raw = self.suggest(number)
                same = not isinstance(raw, Answer) and all(
                    _near(raw[key], item) for key, item in points[number].items()
                )
                if not same:
                    strange.add(number)
            elif event["kind"] == "ended":
                ended = event["standing"]
                loss = ended["loss"] if ended["over"] in ("finished", "stopped") else None
                if number in strange:
                    self._tell_of_another(number, points[number], loss)
                else:
                    self.tell(number, points[number], loss)

    def _tell_of_another(self, number: int, point: Point, loss: float | None) -> None:
        self.tell(number, point, None)
        whole = {name: point.get(name, each.values[0]) for name, each in self._study.search.items()}
        if loss is not None:
            with suppress(NotImplementedError):
                encoded = {name: _encoded(self._study, name, value) for name, value in whole.items()}
                self._inner.add_evaluated_point(encoded, loss)


def open_searcher(study: StudyConfig) -> Suggesting:
    """Returns the searcher of a study.

    Raises:
        InputError: It is unknown or not installed, or cannot search this.
    """
    return Drawing(study) if study.searcher.kind in ("random", "grid") else FromTune(study)


def load_class(chosen: Chosen, what: str, known: Sequence[str]) -> Any:
    """Imports ``package.module:Class``.

    Raises:
        InputError: There is none.
    """
    module, separator, name = chosen.kind.replace(":", ".").rpartition(".")
    if not separator:
        from pilotwave.config.registry import suggestion

        raise InputError(
            f"{what}: unknown kind {chosen.kind!r}{suggestion(chosen.kind, dict.fromkeys(known))}; expected one of "
            f"{', '.join(known)}, or package.module:Class"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{what}: {chosen.kind} cannot be imported: {error}") from error


def _make(study: StudyConfig) -> Any:
    chosen = study.searcher
    place, package, install = KNOWN.get(chosen.kind, ("", "", ""))
    if place and importlib.util.find_spec(package) is None:
        raise MissingDependencyError(
            f"searcher {chosen.kind} needs {install}, which is not installed; run: pip install {install}"
        )
    found = load_class(Chosen(kind=place) if place else chosen, "searcher", ("random", "grid", *KNOWN))
    options = dict(chosen.options)
    accepted = inspect.signature(found.__init__).parameters
    for seed in SEEDS:
        if seed in accepted and seed not in options:
            options[seed] = study.seed % 2**32
    try:
        inner = found(**options)
        taken = inner.set_search_properties(LOSS, "min", _space(study))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"searcher {chosen.kind} does not take this search: {reason}") from error
    if taken is False:
        raise InputError(f"searcher {chosen.kind} does not take a search from outside")
    return inner


def _space(study: StudyConfig) -> dict[str, Any]:
    from ray import tune

    space: dict[str, Any] = {}
    for name, each in study.search.items():
        match each.way:
            case "choice":
                space[name] = tune.choice(list(range(len(each.values))))
            case "uniform":
                space[name] = tune.uniform(*each.values)
            case "log_uniform":
                space[name] = tune.loguniform(*each.values)
            case "integer":
                space[name] = tune.randint(each.values[0], each.values[1] + 1)
    return space


def _decoded(study: StudyConfig, name: str, value: Any) -> Any:
    dimension = study.search[name]
    if dimension.way == "choice":
        return dimension.values[int(value)]
    return int(value) if dimension.way == "integer" else float(value)


def _encoded(study: StudyConfig, name: str, value: Any) -> Any:
    dimension = study.search[name]
    return list(dimension.values).index(value) if dimension.way == "choice" else value


def _near(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, int | float):
        return abs(left - right) <= 1e-12 * max(1.0, abs(left))
    return bool(left == right)


def _id(number: int) -> str:
    return f"{number:04d}"


__all__ = ["KNOWN", "load_class", "open_searcher"]
