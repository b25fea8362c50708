"""A comparison: tasks times methods times seeds, done once each and kept.

May import the modules beside it and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pilotwave.bench.loop import Record, Reference, Step
from pilotwave.bench.methods import Method
from pilotwave.bench.run import RunRequest, measure_unguided
from pilotwave.bench.spread import RunFailure, Spread
from pilotwave.bench.store import RunStore
from pilotwave.bench.task import Suite, Task
from pilotwave.bench.tuning import tuned


@dataclass(frozen=True)
class Comparison:
    """What is to be compared.

    Attributes:
        suite: Of the tasks.
        tasks: Some of it.
        methods: Each with a label of its own.
        seeds: Each is a run of its own.
        queries: Of every run.
        output: Where it is kept.
        device: Of the models.
        chosen: Settings that tuning chose for methods without their own, see :mod:`pilotwave.bench.tuning`.
        anew: Whether finished runs are done again.
    """

    suite: Suite
    tasks: tuple[Task, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    queries: int
    output: Path
    device: str = "cpu"
    chosen: Record | None = None
    anew: bool = False

    def requests(self) -> list[RunRequest]:
        """Returns all runs, every task and method with the first seed before the second."""
        return [
            RunRequest(
                self.suite.name, task.name, tuned(method, task, self.chosen), seed, self.queries, self.device
            )
            for seed in self.seeds
            for task in self.tasks
            for method in self.methods
        ]


@dataclass(frozen=True)
class Progress:
    """How far a comparison is.

    Attributes:
        done: Runs, those found finished among them.
        found: Runs that were finished before.
        total: Runs.
        request: The run that this is about, or None.
        step: How far it is; None when it has ended.
        failure: Why it has no record, or empty.
    """

    done: int
    found: int
    total: int
    request: RunRequest | None = None
    step: Step | None = None
    failure: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a comparison.

    Attributes:
        records: Of all finished runs, in the order of the requests.
        failures: Runs that raised, with the reason; they are done again next time.
    """

    records: tuple[Record, ...]
    failures: tuple[tuple[RunRequest, str], ...]


def compare(comparison: Comparison, spread: Spread, observe: Callable[[Progress], None]) -> Outcome:
    """Does the runs that are not finished and returns all; each is kept as soon as it ends.

    Raises:
        InputError: A method has a setting that it does not know, or a task cannot be built.
        StorageError: A record could not be written.
    """
    store, requests = RunStore(comparison.output), comparison.requests()
    for request in requests:
        request.method.config()
    finished = {} if comparison.anew else _finished(store, requests)
    pending = [request for request in requests if request.key not in finished]
    done = found = len(finished)
    observe(Progress(done, found, len(requests)))
    pending = _with_references(comparison, store, pending)
    failures: list[tuple[RunRequest, str]] = []

    def watch(request: RunRequest, step: Step) -> None:
        observe(Progress(done, found, len(requests), request, step))

    for request, result in spread.run(pending, watch):
        if isinstance(result, RunFailure):
            failures.append((request, result.message))
        else:
            store.write(request, result)
            finished[request.key] = result
        done += 1
        message = result.message if isinstance(result, RunFailure) else ""
        observe(Progress(done, found, len(requests), request, None, message))
    return Outcome(tuple(finished[item.key] for item in requests if item.key in finished), tuple(failures))


def _finished(store: RunStore, requests: Sequence[RunRequest]) -> dict[tuple[str, str, int], Record]:
    records = ((request.key, store.read(request)) for request in requests)
    return {key: record for key, record in records if record is not None}


def _with_references(comparison: Comparison, store: RunStore, pending: Sequence[RunRequest]) -> list[RunRequest]:
    """Gives each run what its model does unguided; measured once, here, and kept."""
    tasks = {task.name: task for task in comparison.tasks}
    found: dict[str, Reference] = {}
    for request in pending:
        task = tasks[request.task]
        if task.reference_name in found:
            continue
        reference = None if comparison.anew else store.reference(task, comparison.device)
        if reference is None:
            reference = measure_unguided(task, comparison.device)
            store.write_reference(task, comparison.device, reference)
        found[task.reference_name] = reference
    return [replace(request, reference=found[tasks[request.task].reference_name]) for request in pending]


__all__ = ["Comparison", "Outcome", "Progress", "compare"]
