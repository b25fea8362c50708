"""Messages between a driver and an oracle's process: a length, then a pickle, over a private socket.

The socket is none of the standard streams, so whatever an oracle prints cannot corrupt a message. Only
processes that pilotwave started hold it, so unpickling is safe; each message carries a mark and a checksum, so that
what a library wrote into the wrong descriptor is never taken for one. May import the standard library.
"""

from __future__ import annotations

import pickle
import socket
import struct
import time
import zlib
from typing import Any

_MARK = b"pilotwav"
_HEAD = struct.Struct(">8sQI")
_CHUNK = 1 << 20


class FrameError(Exception):
    """What came is no message; who sent it cannot be understood any more."""


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
    channel.sendall(_HEAD.pack(_MARK, len(body), zlib.crc32(body)) + body)


def receive_frame(channel: socket.socket, deadline: float | None = None) -> Any:
    """Waits for one message and returns it.

    Raises:
        TimeoutError: The deadline passed.
        EOFError: The other end is gone.
        FrameError: What came is no message.
    """
    head = _receive_exactly(channel, _HEAD.size, deadline)
    mark, length, checksum = _HEAD.unpack(head)
    if mark != _MARK:
        raise FrameError(f"expected a message, got {head[:16]!r}")
    body = _receive_exactly(channel, length, deadline)
    if zlib.crc32(body) != checksum:
        raise FrameError(f"a message of {length} bytes was corrupted on its way")
    return pickle.loads(body)


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


__all__ = ["FrameError", "receive_frame", "send_frame"]
