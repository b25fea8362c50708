"""What an archive holds, counted. May import pyarrow, numpy and the archive's own modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilotwave.archive.project.contents import Contents
from pilotwave.archive.project.files import tree_bytes
from pilotwave.archive.project.manifest import NAME, PartEntry
from pilotwave.archive.project.promises import JOURNAL, RECEIPTS, promised

COUNTED = {
    "campaigns": "campaign",
    "contributors": "contributor",
    "oracles": "oracle",
    "backbones": "backbone",
    "statuses": "status",
}
"""What is counted by value, and in which column it stands."""

_KIND_OF_BYTES = {
    ".seg": "segments",
    ".parquet": "columns",
    ".latents": "latents",
    ".noise": "noise",
    ".keys": "digests",
    ".sums": "checksums",
}


def statistics_of(contents: Contents) -> dict[str, Any]:
    """Returns counts by campaign, contributor, oracle, backbone and status, bytes by kind, and what was saved."""
    manifest = contents.manifest
    table = contents.read([*COUNTED.values(), "run_id"])
    facts: dict[str, Any] = {
        "archive": str(contents.archive),
        "latents_kept_as": manifest.latents,
        "generation": manifest.generation,
        "rows": contents.rows,
        "runs": len(pc.unique(table.column("run_id"))),
    }
    facts |= {name: _counts(table.column(column)) for name, column in COUNTED.items()}
    facts["saved"] = _saved(contents)
    facts["parts"] = sum(isinstance(entry, PartEntry) for entry in manifest.contents)
    facts["segments"] = len(manifest.contents) - facts["parts"]
    facts["indexes"] = len(manifest.indexes)
    facts["removals"] = len(list((contents.archive / RECEIPTS).glob("*.json")))
    facts["promised_removals"] = len(promised(contents.archive))
    facts["bytes"] = _bytes(contents)
    return facts


def _counts(column: pa.ChunkedArray) -> Mapping[str, int]:
    counted = pc.value_counts(column)
    values, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    pairs = sorted(zip(values, counts, strict=True), key=lambda pair: (-pair[1], str(pair[0])))
    return {str(value): count for value, count in pairs}


def _saved(contents: Contents) -> dict[str, float | int]:
    """Returns what was not asked again: queries, and the cost and seconds of the answers that were used."""
    counted = pc.value_counts(contents.read(["reused_from"]).column(0).drop_null())
    times = np.array(counted.field("counts").to_pylist(), np.int64)
    # A mean of several answers saved one question: that of the nearest, which is named first.
    rows = contents.locate([text.split(" ")[0] for text in counted.field("values").to_pylist()])
    there = rows >= 0
    table = contents.read(["cost", "started", "finished"], rows[there])
    began, ended = (table.column(name).cast(pa.int64()) for name in ("started", "finished"))
    seconds = pc.subtract(ended, began).fill_null(0).to_numpy() / 1e6
    return {
        "queries": int(times.sum()),
        "cost": float((table.column("cost").to_numpy() * times[there]).sum()),
        "seconds": float((seconds * times[there]).sum()),
    }


def _bytes(contents: Contents) -> dict[str, int]:
    found = dict.fromkeys([*_KIND_OF_BYTES.values(), "indexes", "documents"], 0)
    archive = contents.archive
    for entry in contents.manifest.contents:
        for name in entry.names():
            path = archive / name
            found[_KIND_OF_BYTES[path.suffix]] += tree_bytes(path) if path.exists() else 0
    found["indexes"] = sum(
        tree_bytes(archive / name) for entry in contents.manifest.indexes.values() for name in entry.names()
    )
    documents = [archive / NAME, *(archive / RECEIPTS).glob("*.json"), *(archive / JOURNAL).glob("*.json")]
    found["documents"] = sum(tree_bytes(path) for path in documents if path.exists())
    return {**found, "total": sum(found.values())}


__all__ = ["COUNTED", "statistics_of"]
