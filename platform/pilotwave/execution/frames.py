"""Messages between a driver and an oracle's process: a length, then a pickle, over a private socket.

The socket is none of the standard streams, so whatever an oracle prints cannot corrupt a message. Only
processes that pilotwave started hold it, so unpickling is safe. May import the standard library.
"""

from __future__ import annotations

import pickle
import socket
import struct
import time
from typing import Any

_LENGTH = struct.Struct(">Q")
_CHUNK = 1 << 20


def send_frame(channel: socket.socket, message: object, deadline: float | None = None) -> None:
    """Sends one message.

    Args:
        channel: A connected stream socket.
        message: Anything that pickles.
        deadline: On the clock of ``time.monotonic``, or None to wait for ever.

    Raises:
        TimeoutError: The deadline passed.
        OSError: The other end is gone.
    """
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    channel.settimeout(_remaining(deadline))
    channel.sendall(_LENGTH.pack(len(body)) + body)


def receive_frame(channel: socket.socket, deadline: float | None = None) -> Any:
    """Waits for one message and returns it.

    Raises:
        TimeoutError: The deadline passed.
        EOFError: The other end is gone.
    """
    (length,) = _LENGTH.unpack(_receive_exactly(channel, _LENGTH.size, deadline))
    return pickle.loads(_receive_exactly(channel, length, deadline))


def _receive_exactly(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    received = bytearray()
    while len(received) < size:
        channel.settimeout(_remaining(deadline))
        try:
            chunk = channel.recv(min(size - len(received), _CHUNK))
        except ConnectionError as error:
            raise EOFError(str(error)) from error
        if not chunk:
            raise EOFError(f"the other end is gone after {len(received)} of {size} bytes")
        received += chunk
    return bytes(received)


def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the deadline has passed")
    return remaining


__all__ = ["receive_frame", "send_frame"]
