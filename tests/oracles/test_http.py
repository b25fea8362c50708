"""A judge behind a URL: asked, waited for, and misbehaving in every way that a real server can."""

import email.utils
import json
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import ArraySample, Sample
from pilotwave.testing.http_server import HttpTestServer, Reaction, ReceivedRequest
from pilotwave.testing.oracle_contract import OracleContract, one_of_each_media
from pilotwave.testing.small_campaign import campaign, state_of
from pilotwave_oracles import http_retries
from pilotwave_oracles.http import HttpOracleConfig, idempotency_key
from pilotwave_oracles.http_client import HttpAnswer

CONTEXT = QueryContext("p0000-00", 2)
SAMPLE = ArraySample(np.array([1.0, 2.0], dtype=np.float32))
SECRET = "s3cret-token-of-ours"


def judge(request: ReceivedRequest) -> Reaction:
    """Answers as a judge should."""
    asked = request.json()
    sample = asked["sample"]
    value = sum(sample["values"]) if sample["media"] == "array" else float(len(json.dumps(sample)))
    return Reaction(body={"contract": 1, "query_id": asked["query_id"], "value": value, "properties": {"a": 1}})


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer(judge) as running:
        yield running


def asked_at(server: HttpTestServer, **fields: Any) -> Oracle:
    settings = {"url": f"{server.url}/score", "time_limit": 20.0, "retry_seconds": 0.01, "poll_seconds": 0.02}
    return HttpOracleConfig(**(settings | fields)).build()


def failure_of(oracle: Oracle, sample: Sample = SAMPLE) -> OracleFailure:
    with pytest.raises(OracleFailure) as caught:
        oracle.evaluate(sample, CONTEXT)
    assert "\n" not in str(caught.value)
    return caught.value


class TestHttpContract(OracleContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: HttpTestServer) -> None:
        self.server = server

    def config(self) -> HttpOracleConfig:
        return HttpOracleConfig(
            url=f"{self.server.url}/score",
            known={"array": [1.0, 2.0], "value": 3.0},  # type: ignore[arg-type]
        )

    def samples(self) -> list[Sample]:
        return list(one_of_each_media().values())


class TestHttpContractInAProcess(OracleContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: HttpTestServer) -> None:
        self.server = server

    def config(self) -> HttpOracleConfig:
        return HttpOracleConfig(url=self.server.url, accepts=("array",), isolation="process")

    def samples(self) -> list[Sample]:
        return [SAMPLE]


def test_the_request_is_posted_with_an_idempotency_key_of_question_and_sample(server: HttpTestServer) -> None:
    answer = asked_at(server).evaluate(SAMPLE, CONTEXT)
    assert (answer.value, dict(answer.properties)) == (3.0, {"a": 1.0})
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/score")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == idempotency_key(SAMPLE, CONTEXT)
    assert request.json()["query_id"] == "p0000-00"
    assert request.json()["attempt"] == 2
    again = QueryContext("p0000-00", 3)
    other = ArraySample(np.array([1.0, 3.0], dtype=np.float32))
    assert idempotency_key(SAMPLE, again) == idempotency_key(SAMPLE, CONTEXT) != idempotency_key(other, CONTEXT)


@pytest.mark.parametrize(
    "trouble",
    [
        Reaction(500, "oops"),
        Reaction(502),
        Reaction(503),
        Reaction(504),
        Reaction(429, headers={"Retry-After": "0"}),
        Reaction(408),
        Reaction(reset=True),
        Reaction(raw=b""),
        Reaction(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        Reaction(raw=b"\x00\xff\x00"),
        Reaction(raw=b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"value":'),
        Reaction(raw=b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"value"'),
        Reaction(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        Reaction(body={"value": 9}, announced=5),
    ],
)
def test_trouble_that_passes_is_tried_again_with_the_same_key(server: HttpTestServer, trouble: Reaction) -> None:
    server.script = [trouble, trouble]
    assert asked_at(server).evaluate(SAMPLE, CONTEXT).value == 3.0
    assert len(server.requests) == 3
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("trouble", "words", "cost"),
    [
        (Reaction(500, "<h1>oops</h1>\nline"), "status 500: <h1>oops</h1> line", None),
        (Reaction(503), "status 503", 0.0),
        (Reaction(429, "slow down", {"Retry-After": "0"}), "status 429: slow down", 0.0),
        (Reaction(reset=True), "Connection reset by peer", None),
        (Reaction(raw=b""), "closed without an answer", None),
        (Reaction(body="{}", announced=5), "closed in the middle of the answer", None),
    ],
)
def test_trouble_that_does_not_pass_is_a_failure_that_may_be_tried_again(
    server: HttpTestServer, trouble: Reaction, words: str, cost: float | None
) -> None:
    server.script = [trouble] * 5
    failure = failure_of(asked_at(server, retries=2))
    assert (failure.stage, failure.retryable, failure.cost) == ("http", True, cost)
    assert words in str(failure)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "stage", "words"),
    [
        (Reaction(400, "no such model"), "http", "status 400: no such model"),
        (Reaction(404), "http", "status 404"),
        (Reaction(401, "who?"), "http", "status 401: the server refuses our credentials; check headers: who?"),
        (
            Reaction(301, headers={"Location": "https://other.example/x?y"}),
            "http",
            r"redirects are not followed; .*other.example",
        ),
        (Reaction(307, headers={"Location": "/elsewhere"}), "http", "redirects are not followed"),
        (Reaction(204), "http", "status 204"),
        (Reaction(200, "<html>Welcome</html>"), "contract", "not by the contract.*Welcome"),
        (Reaction(200, b"\xff\xfe\x00"), "contract", "not by the contract"),
        (Reaction(200, ""), "contract", "not by the contract"),
        (Reaction(200, '{"value": 1'), "contract", "not by the contract"),
        (Reaction(200, {"value": 1, "query_id": "p0000-01"}), "contract", "expected a reply to p0000-00"),
        (Reaction(202, {}), "contract", "expected a Location with status 202"),
        (Reaction(422, {"failure": {"stage": "parse", "message": "an odd array"}}), "parse", "^an odd array$"),
        (Reaction(200, {"failure": {"stage": "scf", "message": "no"}, "cost": 2}), "scf", "^no$"),
    ],
)
def test_answers_that_say_no_are_failures_at_once(
    server: HttpTestServer, answer: Reaction, stage: str, words: str
) -> None:
    server.script = [answer]
    failure = failure_of(asked_at(server))
    assert (failure.stage, failure.retryable) == (stage, False)
    with pytest.raises(OracleFailure, match=words):
        raise failure
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "slow",
    [
        Reaction(body={"value": 1}, delay=30),
        Reaction(body={"value": 1.000000001}, drip=0.2),
        Reaction(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", delay=0.9),
    ],
)
def test_a_slow_answer_ends_at_the_time_limit_however_it_trickles(server: HttpTestServer, slow: Reaction) -> None:
    server.script = [slow] * 9
    begun = time.monotonic()
    failure = failure_of(asked_at(server, time_limit=1.0))
    assert failure.stage in ("wall-clock limit", "http")
    assert time.monotonic() - begun < 10.0
    assert failure.stage == "wall-clock limit" or "no time is left" in str(failure)


def test_nobody_there_costs_nothing() -> None:
    with HttpTestServer() as gone:
        url = gone.url
    failure = failure_of(HttpOracleConfig(url=url, retries=1, retry_seconds=0.01).build())
    assert (failure.stage, failure.retryable, failure.cost) == ("http", True, 0.0)
    assert "no connection: Connection refused" in str(failure)


def test_a_host_that_has_no_address_is_said() -> None:
    failure = failure_of(HttpOracleConfig(url="http://judge.invalid/", retries=0, time_limit=30).build())
    assert "no connection: the name of the host is not known" in str(failure)


def test_an_endless_answer_is_cut_off(server: HttpTestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotwave_oracles.http_client.LONGEST_BODY", 2**20)
    server.script = [Reaction(body=b" " * (2**20 + 1))]
    assert "the answer is longer than 1 MiB" in str(failure_of(asked_at(server, retries=0)))


def test_retry_after_is_waited_for_and_one_beyond_the_time_limit_is_not(server: HttpTestServer) -> None:
    waits: list[float] = []
    oracle = asked_at(server, time_limit=100.0)
    oracle._retries.__dict__["sleep"] = waits.append  # type: ignore[attr-defined]
    server.script = [
        Reaction(429, headers={"Retry-After": "7"}),
        Reaction(503, headers={"Retry-After": "nonsense"}),
    ]
    assert oracle.evaluate(SAMPLE, CONTEXT).value == 3.0
    assert waits[0] == 7.0
    assert waits[1] < 1.0
    server.script = [Reaction(429, headers={"Retry-After": "3600"})]
    failure = failure_of(oracle)
    assert (failure.retryable, failure.cost) == (True, 0.0)
    assert "asks to wait 3600 s; no time is left" in str(failure)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (email.utils.formatdate(1_000_060, usegmt=True), 60.0),
        (email.utils.formatdate(999_000, usegmt=True), 0.0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 400, 1e9),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert HttpAnswer(429, {"retry-after": text}, b"").retry_after(1_000_000.0) == seconds


def test_an_answer_that_takes_its_time_is_polled(server: HttpTestServer) -> None:
    server.script = [
        Reaction(202, headers={"Location": "/jobs/7", "Retry-After": "0"}),
        Reaction(202),
        Reaction(502),
        Reaction(303, headers={"Location": f"{server.url}/answers/7"}),
        Reaction(200, {"value": 5, "query_id": "p0000-00"}),
    ]
    assert asked_at(server).evaluate(SAMPLE, CONTEXT).value == 5.0
    seen = [(request.method, request.path) for request in server.requests]
    polled = [("GET", "/jobs/7")] * 3
    assert seen == [("POST", "/score"), *polled, ("GET", "/answers/7")]


def test_an_answer_that_is_never_ready_ends_at_the_time_limit(server: HttpTestServer) -> None:
    server.script = [Reaction(202, headers={"Location": "/jobs/7"})] * 1000
    assert failure_of(asked_at(server, time_limit=0.5)).stage == "wall-clock limit"


def test_a_forgotten_job_is_asked_for_again(server: HttpTestServer) -> None:
    server.script = [Reaction(202, headers={"Location": "/jobs/7"}), Reaction(404)]
    failure = failure_of(asked_at(server))
    assert failure.retryable
    assert "no longer knows the answer" in str(failure)


def test_a_location_elsewhere_is_not_followed_with_our_headers(server: HttpTestServer) -> None:
    with HttpTestServer(judge) as other:
        server.script = [Reaction(202, headers={"Location": f"{other.url}/jobs/7"})]
        failure = failure_of(asked_at(server))
        assert "only its own addresses are followed" in str(failure)
        assert not other.requests


def test_headers_come_from_the_environment_and_are_shown_nowhere(
    server: HttpTestServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)
    config = HttpOracleConfig(
        url=server.url, headers={"Authorization": "Bearer ${JUDGE_TOKEN}"}, retries=1, retry_seconds=0.01
    )
    oracle = config.build()
    echo = f"bad token {SECRET} in 'Bearer {SECRET}'"
    shown = [config.model_dump_json(), repr(config), repr(vars(oracle)), str(pickle.dumps(config)), oracle.version]
    said = {"failure": {"stage": SECRET, "message": echo}}
    padded = Reaction(400, "x" * 195 + SECRET)
    for reaction in (Reaction(401, echo), Reaction(500, echo), Reaction(200, echo), Reaction(200, said), padded):
        server.script = [reaction, reaction]
        failure = failure_of(oracle)
        shown += [str(failure), failure.stage, repr(failure)]
        server.script = []
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {SECRET}"}
    assert not [text for text in (*shown, caplog.text) if SECRET[:6] in text]
    assert "***" in "".join(shown)


@pytest.mark.parametrize("value", ["", "two\nlines", "ключ"])
def test_a_variable_that_no_header_can_hold_is_refused_before_any_question(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", value)
    config = HttpOracleConfig(url="http://localhost/", headers={"X-Key": "${JUDGE_TOKEN}"})
    with pytest.raises(InputError, match=r"header X-Key: expected .* JUDGE_TOKEN") as caught:
        config.build()
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "judge.example.org"}, "expected a URL like https://"),
        ({"url": "ftp://judge.example.org"}, "expected a URL like https://"),
        ({"url": "http://"}, "expected a URL like https://"),
        ({"url": "http://judge:port/"}, "expected a URL like https://"),
        ({"url": "http://a b/"}, "expected a URL like https://"),
        ({"url": "https://me:pass@judge.example.org"}, "expected a URL without credentials"),
        (
            {"headers": {"Authorization": "Bearer abc"}},
            "expected header Authorization to come from the environment",
        ),
        ({"headers": {"A B": "${X}"}}, "expected the name of a header, got 'A B'"),
        ({"ca_file": "none.pem"}, "expected a file of certificates, found none at"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_at_validation(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        HttpOracleConfig(**({"url": "http://localhost/"} | fields))


def test_a_file_without_certificates_is_refused_before_any_question(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(InputError, match="expected certificates in PEM"):
        HttpOracleConfig(url="https://localhost/", ca_file=tmp_path / "ca.pem").build()


def self_signed(folder: Path, name: str) -> Path:
    """Makes a certificate for this machine, with its key in the same file."""
    x509 = pytest.importorskip("cryptography.x509")
    import datetime
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(certificate.public_bytes(pem) + plain)
    return path


def test_a_certificate_is_trusted_only_if_it_should_be(tmp_path: Path) -> None:
    mine, other = self_signed(tmp_path, "mine"), self_signed(tmp_path, "other")
    with HttpTestServer(judge, certificate=mine) as server:
        trusting = HttpOracleConfig(url=server.url, ca_file=mine, retries=0).build()
        assert trusting.evaluate(SAMPLE, CONTEXT).value == 3.0
        for distrusting in (
            HttpOracleConfig(url=server.url, retries=0),
            HttpOracleConfig(url=server.url, ca_file=other, retries=0),
        ):
            failure = failure_of(distrusting.build())
            assert "the certificate is not trusted" in str(failure)
            assert failure.cost == 0.0
        assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpTestServer(judge) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:pass@"))
        monkeypatch.setenv("no_proxy", "")
        oracle = HttpOracleConfig(url="http://judge.invalid/score?a=1", retries=0).build()
        assert oracle.evaluate(SAMPLE, CONTEXT).value == 3.0
        (request,) = proxy.requests
        assert request.path == "http://judge.invalid/score?a=1"
        assert request.headers["host"] == "judge.invalid"
        assert request.headers["proxy-authorization"] == "Basic bWU6cGFzcw=="


def test_many_questions_wait_at_once(server: HttpTestServer) -> None:
    oracle = asked_at(server)
    server.script = [Reaction(202, headers={"Location": "/j"})] * 30 + [Reaction(200, {"value": 1})] * 30
    answers: list[float] = []
    threads = [
        threading.Thread(target=lambda: answers.append(oracle.evaluate(SAMPLE, CONTEXT).value)) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [1.0] * 30


def test_pauses_double_between_tries(server: HttpTestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_retries.random, "uniform", lambda low, high: (low + high) / 2)
    waits: list[float] = []
    oracle = asked_at(server, retries=9, retry_seconds=1.0, time_limit=1000)
    oracle._retries.__dict__["sleep"] = waits.append  # type: ignore[attr-defined]
    server.script = [Reaction(500)] * 9
    oracle.evaluate(SAMPLE, CONTEXT)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def without_secret(folder: Path) -> bool:
    """Says whether no file below a folder holds the secret, however it is stored."""
    return not [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_campaign_leaves_no_secret_in_its_ledger_its_logs_or_mlflow(
    server: HttpTestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_TOKEN", SECRET)
    oracle = HttpOracleConfig(
        url=server.url, headers={"Authorization": "Bearer ${JUDGE_TOKEN}"}, retries=0, backoff_seconds=0
    )
    server.script = [Reaction(500, f"no, {SECRET}"), Reaction(401, SECRET), Reaction(200, f"{SECRET} is no JSON")]
    tracking = {"kind": "mlflow"}
    driven = campaign(oracle, {"kind": "inline", "evaluators": 2}, queries=12, batch_size=4, tracking=tracking)
    driven.run(tmp_path / "run")
    failures = [item.failure for item in state_of(tmp_path / "run").settled.values() if item.failure is not None]
    assert len(failures) == 2
    assert all("***" in failure.message for failure in failures)
    assert (tmp_path / "mlflow.db").exists()
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {SECRET}"}
    assert without_secret(tmp_path)
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
