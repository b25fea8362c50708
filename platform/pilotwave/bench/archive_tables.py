"""The figures of the archive's suite as Markdown, and which of the stated targets were met.

May import numpy and the modules ``archive_*`` beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pilotwave.bench.archive_speed import TARGETS, crossing_size

Figures = Mapping[str, Any]

NAMES = {
    "usr-public": "USR-LSH, public sample",
    "itq-own": "ITQ, trained on what it holds",
    "itq-public": "ITQ, public sample",
    "lsh-centred": "IndexLSH, centred by the sample",
    "lsh-raw": "IndexLSH, raw",
    "usr-all": "USR-LSH, no sample (60,000)",
    "lsh-raw-all": "IndexLSH, raw (60,000)",
}


def to_markdown(figures: Figures) -> str:
    """Returns all tables and the verdict on what was measured."""
    protocol = (
        "Fashion-MNIST as ann-benchmarks has it: 784 grey values, recall@10 by distance. Parameters are chosen on "
        "the first 5,000 queries, figures are of the last 5,000. With a public sample (5,000 training pictures "
        "outside every index) all methods hold the other 55,000; without one, all 60,000. One thread; times are "
        "CPU time."
    )
    writers = {
        "sizes": _sizes,
        "updates": _updates,
        "speed": _speed,
        "crossing": _crossing,
        "encoding": _encoding,
        "million": _million,
        "ten-million": _ten_million,
    }
    parts = [write(figures[name]) for name, write in writers.items() if name in figures]
    return "\n\n".join(part for part in (protocol, *parts, verdict(figures)) if part) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and the least and largest if there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _micro(seconds: float) -> str:
    """Microseconds as text."""
    value = 1e6 * seconds
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _milli(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}"


def _sizes(figures: Figures) -> str:
    rows = []
    for name, title in NAMES.items():
        cells = []
        for row in figures.values():
            found = row.get(name)
            if found is None:
                cells.append("-")
            else:
                cells.append(_spread(found["recall"]) if isinstance(found, Mapping) else f"{found:.3f}")
        rows.append([title, *cells])
    sampled, plain = (
        ", ".join(str(row[name]["reduced"]) for row in figures.values()) for name in ("usr-public", "usr-all")
    )
    text = (
        "Recall@10 by bits; means over seeds of the index, in brackets least and largest. ITQ has no more bits "
        f"than the vectors have numbers. Dimensions chosen: {sampled} with a sample, {plain} without."
    )
    return text + "\n\n" + _table(["recall@10", *(f"{bits} bits" for bits in figures)], rows)


def _updates(figures: Figures) -> str:
    rows = [[f'`update="{name}"`', _spread(values)] for name, values in figures.items()]
    return "Ablation, 512 bits with the public sample:\n\n" + _table(["", "recall@10"], rows)


def _speed(figures: Figures) -> str:
    rows = []
    for label, found in figures.items():
        beginning = [label, f"{found['bytes']:,.0f}", f"{found['build']:.1f}", found["forgets"]]
        for setting in _shown(label, found):
            row = found["settings"][setting]
            named = setting if len(found["settings"]) > 1 else ""
            times = [_micro(row["seconds"]), _micro(row["alone"])]
            rows.append([*beginning, named, f"{row['recall']:.4f}", *times])
            beginning = ["", "", "", ""]
    targets = ", ".join(f"{target:.2f}" for target in TARGETS)
    text = (
        f"Speed against recall. Settings (candidates compared exactly; lists; ef) are the cheapest that reach "
        f"{targets} on the first half, or the most thorough tried if none does. Bytes are of a vector as it is "
        "stored; USR-LSH with candidates also needs the vectors at hand (3,136 bytes each, memory-mapped in the "
        "archive), which exact search, IVF and HNSW hold themselves."
    )
    head = [
        "55,000 vectors",
        "bytes",
        "build, s",
        "deleting one",
        "setting",
        "recall@10",
        "µs a query",
        "asked alone",
    ]
    return text + "\n\n" + _table(head, rows)


def _shown(label: str, found: Figures) -> list[str]:
    """The settings that the table shows of a method."""
    shown = [each for each in found["chosen"].values() if each is not None] or list(found["settings"])[-1:]
    return list(dict.fromkeys([next(iter(found["settings"])), *shown] if label.startswith("USR") else shown))


def _crossing(figures: Figures) -> str:
    rows = []
    for count, row in figures.items():
        cells = []
        for name in ("usr", "hnsw"):
            found = row.get(name)
            cells.append("not reached" if found is None else f"{_micro(found['seconds'])} ({found['setting']})")
        rows.append([f"{int(count):,}", *cells])
    text = (
        "Microseconds a query at a recall of 0.99 or more (the setting in brackets) by the number of vectors: what "
        f"a scan takes grows with it, what a graph's search takes hardly does. {_who_leads(figures)}"
    )
    return text + "\n\n" + _table(["vectors", "USR-LSH 512, compared exactly", "HNSW (hnswlib)"], rows)


def _who_leads(figures: Figures) -> str:
    both = [row for row in figures.values() if row.get("usr") and row.get("hnsw")]
    if not both:
        return ""
    size = crossing_size(figures)
    if size is not None:
        return f"The graph overtakes the scan at about {size:,.0f} vectors."
    graph = both[0]["hnsw"]["seconds"] < both[0]["usr"]["seconds"]
    return f"The {'graph' if graph else 'scan'} is faster at every size measured."


def _encoding(figures: Figures) -> str:
    rows = []
    for name, row in figures.items():
        sample, update = name.split("-")
        label = f"{'public sample' if sample == 'public' else 'no sample'}, {update}, {row['reduced']} dimensions"
        times = [f"{_micro(min(row[key]))} / {_micro(statistics.median(row[key]))}" for key in ("batches", "alone")]
        rows.append([label, *times])
    text = "Encoding, 512 bits: µs a vector of `add` with all its checks, least / median of the repeats:"
    return text + "\n\n" + _table(["", "in batches of 1,000", "one at a time"], rows)


def _million(figures: Figures) -> str:
    file, search, recall = figures["file"], figures["search"], figures["recall"]
    text = (
        f"A million varied copies of the 55,000 pictures, really encoded ({_micro(figures['build'][0])} µs each): "
        f"{file['bytes']:.0f} bytes a vector in the file with its id (and {file['frame'] / 1e3:,.0f} kB of frame), "
        f"{file['memory']:.1f} in memory with the map from ids as it is loaded ({figures['grown']:.1f} with the "
        f"room that doubling leaves while it grows). A search takes {_milli(search['batch'])} ms in "
        f"a batch of 64, {_milli(search['alone'])} ms alone; recall@10 {recall['0']:.3f} by codes, "
        f"{recall['100']:.3f} after exact comparison of 100, {recall['1000']:.3f} of 1,000. Saving takes "
        f"{file['save']:.2f} s, loading with all checks {file['load']:.2f} s, a digest {file['digest']:.2f} s "
        f"(wall); the loaded index has {'the same digest' if file['same'] else 'ANOTHER DIGEST'}."
    )
    return f"{text}\n\nDeleting from a million codes of 512 bits, µs a vector:\n\n{_deleting(figures['delete'])}"


def _deleting(figures: Figures) -> str:
    ours, faiss, graph = figures["usr-lsh"], figures["faiss"], figures["hnswlib"]
    rows = [
        ["USR-LSH `remove`", _micro(ours["batch"]), _micro(ours["alone"]), "gone, as if it had never been there"],
        ["faiss IndexLSH `remove_ids`", _micro(faiss["batch"]), _micro(faiss["alone"]), "gone, later ids shift"],
    ]
    if graph:
        stays = "still" if graph["vector_stays"] else "no longer"
        after = f"marked, the vector is {stays} in the saved file"
        rows.append(["hnswlib `mark_deleted` (of 20,000)", "", _micro(graph["alone"]), after])
    return _table(["", "1,000 a call", "one a call", "and then"], rows)


def _ten_million(figures: Figures) -> str:
    search = figures["search"]
    return (
        f"Ten million (random codes, nothing encoded): {figures['memory']:.1f} bytes a vector in memory, a search "
        f"{_milli(search['batch'])} ms in a batch of 64, {_milli(search['alone'])} ms alone, a deletion "
        f"{_micro(figures['delete'][0])} µs. On paper: 76 bytes each make a file of 760 MB; a scan takes "
        f"{1e9 * search['batch'] / 1e7:.1f} ns a code, shared by as many cores as there are."
    )


def verdict(figures: Figures) -> str:
    """Says for every target whether it was met."""
    claims: list[tuple[str, bool]] = []
    if "sizes" in figures:
        claims += _recall_claims(figures["sizes"])
    if "encoding" in figures:
        slowest = max(statistics.median(row["batches"]) for row in figures["encoding"].values())
        claims.append((f"encoding at most 60 µs a vector in batches: {_micro(slowest)}", slowest <= 60e-6))
    if "million" in figures:
        claims += _million_claims(figures["million"])
    return "\n".join(f"- {text}: {'met' if held else 'NOT met'}" for text, held in claims)


def _recall_claims(figures: Figures) -> list[tuple[str, bool]]:
    claims = []
    for name, least, what in (("usr-public", 0.75, "with"), ("usr-all", 0.55, "without")):
        found, exact = (statistics.mean(figures["512"][name][field]) for field in ("recall", "reranked"))
        claims += [
            (f"recall@10 at 512 bits {what} a public sample at least {least}: {found:.3f}", found >= least),
            (f"recall@10 after exact comparison of 100, {what}, at least 0.99: {exact:.4f}", exact >= 0.99),
        ]
    others = ("lsh-raw", "lsh-centred", "itq-public", "itq-own")
    plain = ("lsh-raw-all", "itq-public", "itq-own")
    return [*claims, _better(figures, "usr-public", others), _better(figures, "usr-all", plain)]


def _better(figures: Figures, ours: str, others: Sequence[str]) -> tuple[str, bool]:
    behind = [
        f"{NAMES[name]} at {bits} bits"
        for bits, row in figures.items()
        for name in others
        if name in row and row[name] >= statistics.mean(row[ours]["recall"])
    ]
    text = f"{NAMES[ours]}: better than IndexLSH and ITQ at every size"
    return text + (f" (but for {', '.join(behind)})" if behind else ""), not behind


def _million_claims(figures: Figures) -> list[tuple[str, bool]]:
    ours, faiss = figures["delete"]["usr-lsh"], figures["delete"]["faiss"]
    ratio, alone, batches = (
        faiss["alone"] / ours["batch"],
        faiss["alone"] / ours["alone"],
        faiss["batch"] / ours["batch"],
    )
    text = (
        f"at least 500x faster than faiss `remove_ids`, both one id a call: {alone:,.0f}x (both 1,000 a call: "
        f"{batches:,.0f}x; ours 1,000 and theirs one: {ratio:,.0f}x)"
    )
    held, stored = figures["file"]["memory"], figures["file"]["bytes"]
    return [
        (f"deletion at most 5 µs at a million codes, in batches: {_micro(ours['batch'])}", ours["batch"] <= 5e-6),
        (text, alone >= 500),
        (
            f"at most 90 bytes a vector: {stored:.0f} stored, {held:.1f} in memory as loaded",
            max(held, stored) <= 90,
        ),
    ]


__all__ = ["NAMES", "to_markdown", "verdict"]
