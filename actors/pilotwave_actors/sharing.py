"""What campaigns of one cluster need to share workers: who they are, what must be equal, where the owner is found.

Generators that are shared are actors with names, and their mailboxes are the queue: each campaign has one proposal
at most at each, so who is next is who waits longest, and a proposal that nobody wants any more costs a moment of
the model. Evaluators are dearer. They belong to an actor with a name, the owner; every question goes through it.
The alternative, to lease evaluators to campaigns that then ask them directly, saves a hop (about a millisecond) and
loses the one place where it is known who waits, who is next, what the rate allows, and whose questions are not
wanted any more: a campaign that dies with a lease would hold an evaluator until that is noticed, and one that asks
too late would do so behind the back of whoever has it next. May import ray and the core.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from pilotwave.config.components import ComponentConfig
from pilotwave.errors import InfrastructureError, InputError, PilotwaveError
from pilotwave.execution.receipts import Asker, newest_driver

NAMESPACE = "pilotwave"
"""Where owners are found."""
BEAT_SECONDS = 1.0
"""How often a campaign says that it is there."""
SILENT_SECONDS = 10.0
"""A campaign that was not heard from for so long is not served."""
GONE_SECONDS = 20.0
"""After so long its questions are withdrawn and what is being asked for it is ended."""
LINGER_SECONDS = 60.0
"""How long an owner stays, with its workers, when nobody uses it."""
PATIENCE_SECONDS = 180.0
"""How long an owner may take to be made, or made again on another node."""
TRAVELLING = ("py_modules", "working_dir", "pip", "uv", "conda", "image_uri", "container")
"""What of Ray's runtime environment says which code runs."""


@dataclass(frozen=True)
class Sharer:
    """A campaign's driver that shares workers.

    Attributes:
        asker: Its run's receipts and which of the run's drivers it is.
        since: When it began; a younger driver of the same run takes its place.
        most: How many questions it may have in flight.
        fewest: How many it wants to be able to have there at any time.
        idle_seconds: For how long workers beyond those have nothing to do before they are let go.
        terms: What must be the same for all besides what is asked, in words.
    """

    asker: Asker
    since: float
    most: int
    fewest: int
    idle_seconds: float
    terms: str

    @property
    def run(self) -> str:
        """Which run it drives."""
        return str(self.asker.receipts)


def is_newer(sharer: Sharer, known: Sharer) -> bool:
    """Says whether one driver of a run came after another: by the run's mark if it is seen, else by the time."""
    newest = newest_driver(sharer.asker.receipts)
    if newest in (sharer.asker.driver, known.asker.driver):
        return newest == sharer.asker.driver
    return sharer.since > known.since


def digest_of(configs: Sequence[ComponentConfig], *others: object) -> str:
    """Returns a short digest that is equal for whoever may share: the same choices, made of the same code.

    Raises:
        InputError: A choice is a Python object, whose equality cannot be told.
    """
    choices = []
    for config in configs:
        if config.kind == "given":
            raise InputError(
                "runtime.share: what is given as a Python object cannot be shared; name it in the campaign "
                "(kind: python, function: ...), or leave runtime.share out"
            )
        kind = type(config)
        choices.append([f"{kind.__module__}:{kind.__qualname__}", config.model_dump(mode="json"), _code_of(config)])
    environment = ray.get_runtime_context().runtime_env
    code = {key: environment[key] for key in TRAVELLING if key in environment}
    text = json.dumps([choices, code, others], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code_of(config: ComponentConfig) -> str:
    """A digest of the file in which a function lies: an edit makes it another one."""
    place = str(getattr(config, "function", "")).rpartition(":")[0]
    if not place.endswith(".py"):
        return ""
    with suppress(OSError):
        return hashlib.sha256(Path(place).read_bytes()).hexdigest()
    return ""


def find_or_make(actor: type, name: str, *arguments: Any, **options: Any) -> Any:
    """Returns the actor of that name, made if there is none; it belongs to nobody and ends by itself.

    Args:
        actor: Its class.
        name: Unique among those that are shared.
        arguments: Of the class.
        options: Of Ray's.
    """
    settings = {"max_restarts": -1, "max_task_retries": 0, **options}
    found: Any = (
        ray.remote(actor)
        .options(name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", **settings)
        .remote(*arguments)
    )
    return found


class Connection:
    """A campaign's line to an owner, kept up by a thread: a loop that thinks for long is not taken for dead.

    Args:
        sharer: Who says that it is there.
        find: Returns the owner, made if there is none.

    Attributes:
        owner: Its handle; another one after it was lost for good.
        present: Whether it answers.
        failure: What the owner says makes all further waiting vain, or None.
    """

    def __init__(self, sharer: Sharer, find: Callable[[], Any]) -> None:
        self.owner: Any = None
        self.present = False
        self.failure: PilotwaveError | None = None
        self._sharer = sharer
        self._find = find
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="sharing", daemon=True)
        self._thread.start()

    def call(self, method: str, what: str) -> Any:
        """Calls a method of the owner and waits, also for an owner that is just being made.

        Raises:
            PilotwaveError: As the owner raised it.
            InfrastructureError: There is none in time.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            while not self.present and time.monotonic() < deadline:
                time.sleep(0.02)
            try:
                if not self.present:
                    raise InfrastructureError(f"{what}: no owner of the shared workers came up in time")
                return ray.get(getattr(self.owner, method).remote(self._sharer))
            except RayTaskError as error:
                if isinstance(error.cause, PilotwaveError):
                    raise error.cause from None
                raise InfrastructureError(f"{what}: {type(error.cause).__name__}: {error.cause}") from error
            except RayActorError:
                self.present = False

    def close(self) -> None:
        """Says goodbye."""
        self._closed.set()
        self._thread.join(2 * BEAT_SECONDS)
        if self.owner is not None:
            with suppress(RayActorError, RayTaskError, GetTimeoutError):
                ray.get(self.owner.leave.remote(self._sharer), timeout=BEAT_SECONDS)
        self.present = False

    def _keep_up(self) -> None:
        while not self._closed.is_set():
            try:
                if self.owner is None:
                    self.owner = self._find()
                self.failure = ray.get(self.owner.here.remote(self._sharer), timeout=PATIENCE_SECONDS)
                self.present = True
            except Exception:  # whatever keeps the owner from answering: it is looked for anew
                self.present, self.owner = False, None
            self._closed.wait(BEAT_SECONDS if self.present else BEAT_SECONDS / 5)


__all__ = [
    "GONE_SECONDS",
    "LINGER_SECONDS",
    "SILENT_SECONDS",
    "Connection",
    "Sharer",
    "digest_of",
    "find_or_make",
    "is_newer",
]
