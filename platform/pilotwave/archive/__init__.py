"""The durable memory of all answers.

:class:`UsrLshIndex` is imported when it is first asked for: its kernels need numba (extra ``archive``), and the
ledger of a campaign does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilotwave.archive.usr_lsh import UsrLshIndex


def __getattr__(name: str) -> Any:
    if name == "UsrLshIndex":
        from pilotwave.archive.usr_lsh import UsrLshIndex

        return UsrLshIndex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["UsrLshIndex"]
