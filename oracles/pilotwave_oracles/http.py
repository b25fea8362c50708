"""A judge behind a URL (kind ``http``): the JSON contract over POST, answered at once or when it is ready.

May import pydantic, pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urljoin, urlsplit

from pydantic import Field, ValidationInfo, field_validator

import pilotwave
from pilotwave.config.components import OracleConfig, path_in_campaign
from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import SAMPLE_TYPES, Sample
from pilotwave.types import Answer
from pilotwave_oracles.contract import CONTRACT_VERSION, parse_reply, read_reply, write_request
from pilotwave_oracles.contract import STAGE as CONTRACT_STAGE
from pilotwave_oracles.http_client import HttpAnswer, HttpClient, same_origin
from pilotwave_oracles.http_retries import STAGE, Retries
from pilotwave_oracles.known_value import KnownValue
from pilotwave_oracles.secrets import Secrets, check_headers

Media = Literal["array", "image", "molecule"]

_SLOWEST_POLL = 60.0


class HttpOracleConfig(OracleConfig):
    """Asks a server: POST of a request by the contract, answered with a reply by the contract.

    It runs in the evaluator itself and keeps the time limit on its own; many questions can be on their way at once
    (``runtime.evaluators``).
    """

    media: ClassVar[frozenset[str]] = frozenset(SAMPLE_TYPES)
    named_by: ClassVar[str] = "url"
    summary: ClassVar[str] = "A server: POST of JSON, answered at once or polled until it is ready."

    kind: Literal["http"] = "http"
    isolation: Literal["process", "thread"] = Field(
        "thread", description="Where the client runs: a thread is enough, and many may wait at once."
    )
    url: str = Field(description="Where requests are posted, e.g. https://judge.example.org/v1/score.")
    accepts: tuple[Media, ...] = Field(
        ("array", "image", "molecule"), min_length=1, description="The kinds of sample that it takes."
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Headers from environment variables, e.g. {Authorization: 'Bearer ${JUDGE_TOKEN}'}; the values "
        "are recorded nowhere.",
    )
    ca_file: Path | None = Field(
        None, description="Certificates of the authorities to trust (PEM) in place of the system's."
    )
    connect_seconds: float = Field(10.0, gt=0, le=600, description="How long connecting may take.")
    retries: int = Field(
        4,
        ge=0,
        le=100,
        description="Further tries within an attempt after 408, 425, 429, 5xx or a lost connection.",
    )
    retry_seconds: float = Field(
        1.0, gt=0, le=600, description="Pause before the second try; it doubles, unless the server says when."
    )
    poll_seconds: float = Field(
        2.0, gt=0, le=3600, description="Pause between looks at an answer that is not ready (202), at first."
    )
    deterministic: bool = Field(True, description="Whether the same sample always gets the same value.")
    version: str = Field("1", min_length=1, description="Name of the judge's version; change it when it changes.")
    unit: str = Field("", description="Unit of the values, for tables and plots.")
    known: KnownValue | None = Field(None, description="A question whose answer you know, for the preflight.")

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        return checked_url(url)

    @field_validator("headers")
    @classmethod
    def _name_variables(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers)

    @field_validator("ca_file")
    @classmethod
    def _resolve(cls, ca_file: Path | None, info: ValidationInfo) -> Path | None:
        return checked_ca_file(ca_file, info)

    def build(self) -> Oracle:
        """Reads the environment; nothing is sent yet.

        Raises:
            InputError: A variable that a header names is not set, or ``ca_file`` holds no certificates.
        """
        return HttpOracle(self)


class HttpOracle:
    """See :class:`HttpOracleConfig` and :class:`pilotwave.protocols.Oracle`."""

    def __init__(self, config: HttpOracleConfig) -> None:
        self._config = config
        self._secrets = Secrets.of(config.headers)
        client = open_client(config.ca_file, config.connect_seconds)
        self._retries = Retries(client, config.retries, config.retry_seconds, self._secrets.redact)
        self.name = f"http:{urlsplit(config.url).hostname}"
        self.version = f"{config.version}, contract {CONTRACT_VERSION}, {config.url}"
        self.unit = config.unit
        self.media: frozenset[str] = frozenset(config.accepts)
        self.deterministic = config.deterministic

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Asks the server.

        Raises:
            OracleFailure: Stage ``"media"`` or ``"encode"``: the sample cannot be sent; ``"http"``: no answer, or
                one that says no; ``"contract"``: an answer that is no reply; ``"wall-clock limit"``: not in
                time; or any stage that the server names.
        """
        if sample.media not in self.media:
            accepted = ", ".join(sorted(self.media))
            raise OracleFailure(f"{self.name} takes {accepted} samples, got {sample.media}", stage="media")
        deadline = time.monotonic() + self._config.longest
        request = write_request(sample, context).encode()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key(sample, context),
            **self._usual_headers(),
        }
        answer = self._retries.exchange("POST", self._config.url, deadline, headers, request)
        if answer.status == 202:
            answer = self._polled(answer, deadline)
        return self._read(answer, context)

    def known_answer(self) -> KnownAnswer | None:
        """Returns what the configuration gives."""
        return self._config.known.as_known_answer() if self._config.known else None

    def _usual_headers(self) -> dict[str, str]:
        user_agent = f"pilotwave/{pilotwave.__version__}"
        return {"Accept": "application/json", "User-Agent": user_agent, **self._secrets.headers}

    def _polled(self, answer: HttpAnswer, deadline: float) -> HttpAnswer:
        """Looks at the place that a 202 names until the answer is ready."""
        place, pause = self._config.url, self._config.poll_seconds
        while answer.status in (202, 303):
            place = self._next_place(answer, place)
            wanted = answer.retry_after(time.time())
            if answer.status == 202:
                rest = pause if wanted is None else max(wanted, 0.1)
                if time.monotonic() + rest >= deadline:
                    time.sleep(max(0.0, deadline - time.monotonic()))
                    raise OracleFailure(
                        f"not ready within {self._config.longest:g} s", stage="wall-clock limit", retryable=False
                    )
                time.sleep(rest)
                pause = min(_SLOWEST_POLL, pause * 1.5)
            answer = self._retries.exchange("GET", place, deadline, self._usual_headers())
        if answer.status in (404, 410):
            raise OracleFailure(
                f"the server no longer knows the answer that it promised (status {answer.status})",
                stage=STAGE,
                retryable=True,
            )
        return answer

    def _next_place(self, answer: HttpAnswer, place: str) -> str:
        location = answer.headers.get("location")
        if location is None:
            if place == self._config.url:
                raise OracleFailure("expected a Location with status 202, found none", stage=CONTRACT_STAGE)
            return place
        found = urljoin(place, location)
        if not same_origin(found, self._config.url):
            host = urlsplit(found).hostname
            raise OracleFailure(
                f"the server sends us to {host!r} for the answer; only its own addresses are followed", stage=STAGE
            )
        return found

    def _read(self, answer: HttpAnswer, context: QueryContext) -> Answer:
        text = self._secrets.redact(answer.body.decode(errors="replace"))
        if answer.status in (200, 201):
            return read_reply(text, context.query_id, self.unit)
        try:
            is_failure = parse_reply(text).failure is not None
        except OracleFailure:
            is_failure = False
        if is_failure:
            return read_reply(text, context.query_id, self.unit)
        raise OracleFailure(describe_status(answer, self._retries.excerpt(answer)), stage=STAGE)


def describe_status(answer: HttpAnswer, excerpt: str) -> str:
    """Puts a status that is no success into words that help."""
    if answer.status in (401, 403):
        return f"status {answer.status}: the server refuses our credentials; check headers{excerpt}"
    if 300 <= answer.status < 400:
        target = urlsplit(answer.headers.get("location", ""))
        return f"status {answer.status}: redirects are not followed; give the url it points to ({target.netloc})"
    return f"status {answer.status}{excerpt}"


def idempotency_key(sample: Sample, context: QueryContext) -> str:
    """Returns the key of a question: the query id and a digest of the sample.

    Query ids begin anew in every campaign, so that an id alone would give one campaign another's answers.
    """
    fields, blob = sample.payload()
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode() + blob).hexdigest()
    return f"{context.query_id}-{digest[:16]}"


def checked_url(url: str) -> str:
    """Returns the URL.

    Raises:
        ValueError: It is not of http or https, has no host, or holds credentials.
    """
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"expected a URL like https://judge.example.org/score, got {url!r}")
    if parts.username or parts.password:
        raise ValueError("expected a URL without credentials; put them into headers, from the environment")
    return url


def checked_ca_file(ca_file: Path | None, info: ValidationInfo) -> Path | None:
    """Returns the path made absolute; raises a ValueError if there is no such file."""
    if ca_file is None:
        return None
    path = path_in_campaign(ca_file, info)
    if not path.is_file():
        raise ValueError(f"expected a file of certificates, found none at {path}")
    return path


def open_client(ca_file: Path | None, connect_seconds: float) -> HttpClient:
    """Opens a client.

    Raises:
        InputError: The file holds no certificates.
    """
    try:
        return HttpClient(ca_file, connect_seconds)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(f"{ca_file}: expected certificates in PEM: {error.strerror or error}") from error


__all__ = [
    "HttpOracle",
    "HttpOracleConfig",
    "checked_ca_file",
    "checked_url",
    "describe_status",
    "idempotency_key",
    "open_client",
]
