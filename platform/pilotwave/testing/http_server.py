"""A real HTTP server for tests of whatever asks servers: it answers well, or goes wrong in a chosen way.

May import the standard library.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class ReceivedRequest:
    """What the server was sent.

    Attributes:
        method: E.g. ``"POST"``.
        path: With the query.
        headers: By their names in lower case.
        body: As it came.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Returns the body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reaction:
    """How the server reacts to one request.

    Attributes:
        status: Of the answer.
        body: Text or bytes as they are; anything else as JSON.
        headers: Further ones.
        delay: Seconds before anything is sent.
        drip: Seconds between the bytes of the body.
        announced: Bytes that Content-Length promises beyond those that come, before the connection is closed.
        raw: Sent in place of a whole answer, before the connection is closed.
        reset: The connection is reset without a word.
    """

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    announced: int = 0
    raw: bytes | None = None
    reset: bool = False

    def encoded(self) -> bytes:
        """Returns the body as bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


class HttpTestServer:
    """Listens on a free port of this machine while it is open: ``with HttpTestServer(usual) as server:``.

    Args:
        usual: Answers every request that the script does not.
        certificate: A PEM file with a certificate and its key, for https.

    Attributes:
        url: Without a path.
        script: Reactions to the next requests, in order; they are used up.
        requests: What was received, in order.
    """

    def __init__(
        self,
        usual: Callable[[ReceivedRequest], Reaction] = lambda _: Reaction(404),
        certificate: Path | None = None,
    ) -> None:
        self.script: list[Reaction] = []
        self.requests: list[ReceivedRequest] = []
        self._usual = usual
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _react(self, request: ReceivedRequest) -> Reaction:
        with self._lock:
            self.requests.append(request)
            if self.script:
                return self.script.pop(0)
        return self._usual(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        react = self._react

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = ReceivedRequest(self.command, self.path, headers, self.rfile.read(length))
                try:
                    self.perform(react(request))
                except OSError:  # the client has had enough
                    self.close_connection = True

            do_GET = do_POST = handle_any  # noqa: N815

            def perform(self, reaction: Reaction) -> None:
                time.sleep(reaction.delay)
                self.close_connection = True
                if reaction.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    return
                if reaction.raw is not None:
                    self.wfile.write(reaction.raw)
                    return
                body = reaction.encoded()
                self.send_response(reaction.status)
                for name, value in reaction.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) + reaction.announced))
                self.end_headers()
                for piece in [body] if not reaction.drip else [body[i : i + 1] for i in range(len(body))]:
                    time.sleep(reaction.drip)
                    self.wfile.write(piece)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


__all__ = ["HttpTestServer", "Reaction", "ReceivedRequest"]
