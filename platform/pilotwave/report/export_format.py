"""The names of the formats of ``pilotwave export``; on their own, so that the command line starts fast.

May import nothing of pilotwave.
"""

from enum import StrEnum


class ExportFormat(StrEnum):
    """What can be written.

    ``SDF`` and ``PNG`` hold distinct samples, best first; ``PARQUET`` and ``CSV`` hold every candidate in the
    order it was made, or the best evaluations if a number is given.
    """

    SDF = "sdf"
    PNG = "png"
    PARQUET = "parquet"
    CSV = "csv"


__all__ = ["ExportFormat"]
