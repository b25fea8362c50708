"""One HTTP exchange with a deadline that holds: connecting, headers and body together, however slowly they come.

Certificates are always checked, redirects never followed, and what comes back is bounded. Proxies are taken from
the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY). May import the standard library.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

LONGEST_BODY = 16 * 2**20
"""Bytes of an answer; a reply holds a few numbers."""

_PORTS = {"http": 80, "https": 443}


class ExchangeError(Exception):
    """There was no whole answer.

    Attributes:
        connected: False if the request did not reach anybody, so that nothing can have been done or paid.
        overdue: The deadline passed.
    """

    def __init__(self, message: str, *, connected: bool = True, overdue: bool = False) -> None:
        super().__init__(message)
        self.connected = connected
        self.overdue = overdue


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer.

    Attributes:
        status: E.g. 200.
        headers: By their names in lower case.
        body: At most :data:`LONGEST_BODY`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def retry_after(self, now: float) -> float | None:
        """Returns the seconds that the server asks to wait (Retry-After, a number or a date), or None.

        Args:
            now: Seconds since the epoch.
        """
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text), 1e9)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
        except (ValueError, TypeError, OverflowError):
            return None


class HttpClient:
    """Asks servers, each time over a connection of its own.

    Args:
        ca_file: Certificates of authorities to trust in place of the system's, or None.
        connect_seconds: How long connecting may take.
    """

    def __init__(self, ca_file: Path | None = None, connect_seconds: float = 10.0) -> None:
        self._tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        self._connect_seconds = connect_seconds

    def exchange(
        self, method: str, url: str, deadline: float, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpAnswer:
        """Sends a request and returns the whole answer.

        Args:
            method: ``"GET"`` or ``"POST"``.
            url: With ``http`` or ``https``.
            deadline: On the clock of ``time.monotonic``; for everything together.
            headers: Besides Host and Content-Length.
            body: What is sent.

        Raises:
            ExchangeError: No connection, no whole answer, not in time, or too long.
        """
        target = _Target.of(url)
        left = deadline - time.monotonic()
        if left <= 0:
            raise ExchangeError("no time was left", connected=False, overdue=True)
        connection = target.connection(self._tls, min(left, self._connect_seconds))
        try:
            _connect(connection, deadline)
            assert connection.sock is not None
            with _ends_at(deadline, connection.sock) as ended:
                return _exchange(connection, method, target, {**target.headers, **headers}, body, ended)
        finally:
            connection.close()


@dataclass(frozen=True)
class _Target:
    """Where a request goes: to the server, or to a proxy that passes it on."""

    scheme: str
    host: str
    port: int
    path: str
    proxy: tuple[str, int] | None
    headers: Mapping[str, str]

    @classmethod
    def of(cls, url: str) -> _Target:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        proxy_url = urllib.request.getproxies().get(parts.scheme)
        if not proxy_url or urllib.request.proxy_bypass(host):
            return cls(parts.scheme, host, port, path, None, {})
        proxy = urlsplit(proxy_url if "//" in proxy_url else f"//{proxy_url}")
        login = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}".encode()
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"} if proxy.username else {}
        if parts.scheme == "http":
            path = f"http://{parts.netloc}{path}"
        return cls(parts.scheme, host, port, path, (proxy.hostname or "", proxy.port or 3128), headers)

    def connection(self, tls: ssl.SSLContext, seconds: float) -> http.client.HTTPConnection:
        host, port = self.proxy or (self.host, self.port)
        if self.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=seconds)
        connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=tls)
        if self.proxy is not None:
            connection.set_tunnel(self.host, self.port, dict(self.headers))
        return connection


def same_origin(url: str, other: str) -> bool:
    """Says whether two URLs have the same scheme, host and port, so that headers for one may go to the other."""
    first, second = urlsplit(url), urlsplit(other)
    return (first.scheme, first.hostname, first.port or _PORTS.get(first.scheme)) == (
        second.scheme,
        second.hostname,
        second.port or _PORTS.get(second.scheme),
    )


def _connect(connection: http.client.HTTPConnection, deadline: float) -> None:
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise ExchangeError(f"the certificate is not trusted: {error.verify_message}", connected=False) from error
    except (OSError, http.client.HTTPException) as error:
        overdue = time.monotonic() >= deadline
        raise ExchangeError(f"no connection: {_words(error)}", connected=False, overdue=overdue) from error


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: _Target,
    headers: Mapping[str, str],
    body: bytes | None,
    ended: threading.Event,
) -> HttpAnswer:
    try:
        connection.request(method, target.path, body, {"Accept-Encoding": "identity", **headers})
        answer = connection.getresponse()
        data = answer.read(LONGEST_BODY + 1)
        # read(n) takes a connection that closes early for the end of the body.
        if len(data) <= LONGEST_BODY and answer.length:
            raise http.client.IncompleteRead(data, answer.length)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if ended.is_set():
            raise ExchangeError("no whole answer in time", overdue=True) from error
        raise ExchangeError(_words(error)) from error
    if ended.is_set():
        raise ExchangeError("no whole answer in time", overdue=True)
    if len(data) > LONGEST_BODY:
        raise ExchangeError(f"the answer is longer than {LONGEST_BODY // 2**20} MiB")
    return HttpAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, data)


@contextlib.contextmanager
def _ends_at(deadline: float, channel: socket.socket) -> Iterator[threading.Event]:
    """Shuts a socket down at the deadline: its own time-outs begin anew with every byte."""
    ended = threading.Event()

    def end() -> None:
        ended.set()
        with contextlib.suppress(OSError):
            channel.shutdown(socket.SHUT_RDWR)

    left = max(0.0, deadline - time.monotonic())
    channel.settimeout(left + 1.0)
    timer = threading.Timer(left, end)
    timer.daemon = True
    timer.start()
    try:
        yield ended
    finally:
        timer.cancel()


def _words(error: Exception) -> str:
    """Says in a few words what went wrong on the wire; what the server sent is not repeated."""
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was closed in the middle of the answer"
    if isinstance(error, http.client.RemoteDisconnected | http.client.BadStatusLine):
        return "the connection was closed without an answer, or the answer is not HTTP"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):
        return "the name of the host is not known"
    if isinstance(error, OSError):
        return " ".join((error.strerror or str(error) or type(error).__name__).split())[:200]
    return type(error).__name__


__all__ = ["LONGEST_BODY", "ExchangeError", "HttpAnswer", "HttpClient", "same_origin"]
