"""An oracle asked about many samples without a campaign: side by side, each attempt as a campaign would make it.

May import the modules beside it and :mod:`pilotwave.config`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

from pilotwave.config.components import OracleConfig
from pilotwave.execution.backoff import rest_seconds
from pilotwave.execution.oracle_host import OracleHost, open_oracle_host
from pilotwave.execution.question import OracleIdentity
from pilotwave.protocols import QueryContext
from pilotwave.samples import Sample
from pilotwave.types import Evaluation


@dataclass(frozen=True)
class Ended:
    """How one question ended.

    Attributes:
        place: Of the sample in what was asked, from 0.
        evaluation: Of the last attempt; its cost is that of all.
    """

    place: int
    evaluation: Evaluation


class AskedAlone:
    """Hosts of one oracle: ``with AskedAlone(config, 4) as oracle:``.

    Args:
        config: Of the oracle.
        workers: How many questions are asked side by side.
    """

    def __init__(self, config: OracleConfig, workers: int) -> None:
        self._config = config
        self._hosts: list[OracleHost] = [
            open_oracle_host(config, None, f"evaluator-{number}") for number in range(workers)
        ]
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for host in self._hosts:
            host.close()

    def start(self, preflight: bool = True) -> OracleIdentity:
        """Builds the oracle everywhere and asks the known question once.

        Raises:
            PilotwaveError: It cannot be built, or does not give the known answer.
        """
        with ThreadPoolExecutor(len(self._hosts)) as pool:
            starting = [pool.submit(host.start) for host in self._hosts]
            identities = [future.result() for future in starting]
        if preflight:
            self._hosts[0].preflight()
        return identities[0]

    def ask(self, samples: Sequence[Sample], name: str, told: Callable[[Ended], None]) -> None:
        """Asks about every sample, and tells of each as soon as it has ended, in the caller's thread.

        Args:
            samples: In the order of their places.
            name: The query ids begin with it.
            told: Called for each.
        """
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(len(samples)):
            waiting.put(place)
        ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()

        def work(host: OracleHost) -> None:
            while not self._stopped.is_set():
                try:
                    place = waiting.get_nowait()
                except queue.Empty:
                    return
                ended.put(Ended(place, self._asked(host, samples[place], f"{name}-{place + 1}")))

        # Daemon threads: an interrupted command must not wait for an oracle that takes days.
        for host in self._hosts:
            threading.Thread(target=work, args=(host,), daemon=True).start()
        for _ in samples:
            told(ended.get())

    def _asked(self, host: OracleHost, sample: Sample, query_id: str) -> Evaluation:
        cost = 0.0
        for attempt in range(1, self._config.attempts + 1):
            evaluation = host.evaluate(sample, QueryContext(query_id, attempt))
            cost += evaluation.cost
            failure = evaluation.failure
            if failure is None or not failure.retryable or attempt == self._config.attempts:
                break
            time.sleep(rest_seconds(self._config.backoff_seconds, 0, query_id, attempt))
        return replace(evaluation, cost=cost)


__all__ = ["AskedAlone", "Ended"]
