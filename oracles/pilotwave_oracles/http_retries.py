"""Which answers of a server are worth another try, and when: the same for every oracle that lives behind a URL.

May import pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pilotwave.errors import OracleFailure
from pilotwave_oracles.http_client import ExchangeError, HttpAnswer, HttpClient

STAGE = "http"
"""The stage of a failure between pilotwave and the server."""

WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""

NOT_DONE = frozenset({429, 503})
"""Those by which a server says that it did nothing, so that nothing was paid."""

_LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Retries:
    """Sends a request until it is answered or it is not worth another try.

    Attributes:
        client: Sends.
        count: How often more than once.
        pause: Seconds before the second try; it doubles, give or take half, unless the server says when.
        redact: Takes secrets out of what the server wrote.
        sleep: ``time.sleep``, or a test's.
    """

    client: HttpClient
    count: int
    pause: float
    redact: Callable[[str], str]
    sleep: Callable[[float], None] = field(default=time.sleep)

    def exchange(
        self, method: str, url: str, deadline: float, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpAnswer:
        """Returns an answer that is no passing trouble; other statuses than 2xx may be among them.

        Raises:
            OracleFailure: Stage ``"wall-clock limit"``: not in time. Stage ``"http"``, retryable: the trouble
                does not pass; the cost is 0 if the server cannot have done anything.
        """
        for number in range(self.count + 1):
            try:
                answer = self.client.exchange(method, url, deadline, headers, body)
            except ExchangeError as error:
                if error.overdue:
                    raise OracleFailure(f"{error}; the limit is time_limit", stage="wall-clock limit") from error
                failure = OracleFailure(
                    self.redact(str(error)), stage=STAGE, retryable=True, cost=None if error.connected else 0.0
                )
                wanted = None
            else:
                if answer.status not in WORTH_RETRYING:
                    return answer
                wanted = answer.retry_after(time.time())
                failure = OracleFailure(
                    f"status {answer.status}{self.excerpt(answer)}",
                    stage=STAGE,
                    retryable=True,
                    cost=0.0 if answer.status in NOT_DONE else None,
                )
            if number < self.count:
                self._wait(number, wanted, deadline, failure)
        raise failure

    def excerpt(self, answer: HttpAnswer) -> str:
        """Returns the beginning of what the server wrote, without secrets, as the end of a message."""
        text = self.redact(answer.body.decode(errors="replace"))  # before it is cut: half a secret is one too
        line = " ".join(text[:2000].split())
        return f": {line[:200]}" if line else ""

    def _wait(self, number: int, wanted: float | None, deadline: float, failure: OracleFailure) -> None:
        pause = min(_LONGEST_PAUSE, self.pause * 2.0**number) * random.uniform(0.5, 1.5)
        if wanted is not None:
            pause = max(wanted, pause)
        if time.monotonic() + pause >= deadline:
            asks = f", which asks to wait {wanted:.0f} s" if wanted is not None else ""
            raise OracleFailure(
                f"{failure}{asks}; no time is left for another try within time_limit",
                stage=failure.stage,
                retryable=True,
                cost=failure.cost,
            )
        self.sleep(pause)


__all__ = ["NOT_DONE", "STAGE", "WORTH_RETRYING", "Retries"]
