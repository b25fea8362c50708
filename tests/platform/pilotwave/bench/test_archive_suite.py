"""The archive's suite: the protocol counts recall as it should, and all parts run from end to end on small data."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("faiss", reason="the comparison needs faiss")

from pilotwave.bench import archive_costs, archive_data, archive_methods, archive_recall, archive_speed
from pilotwave.bench.archive_data import Neighbours, read_protocol, smaller
from pilotwave.bench.archive_tables import NAMES, to_markdown, verdict
from pilotwave.bench.suites import archive
from pilotwave.cli import run as command_line
from pilotwave.errors import InputError


def write_pictures(folder: Path, prefix: str, images: np.ndarray) -> None:
    header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    labels = struct.pack(">4BI", 0, 0, 8, 1, len(images)) + bytes(len(images))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    axes = random.standard_normal((12, 784))
    for prefix, count in (("train", 1300), ("t10k", 60)):
        grey = 110.0 + 14.0 * random.standard_normal((count, 12)) @ axes
        write_pictures(folder, prefix, np.clip(grey, 0, 255).astype(np.uint8).reshape(count, 28, 28))
    return folder


def test_the_protocol_sets_a_sample_aside_and_knows_the_true_neighbours(pictures: Path) -> None:
    public, everything = read_protocol(pictures)
    assert public.public is not None
    assert everything.public is None
    assert len(everything.vectors) == 1300 == len(public.vectors) + len(public.public)
    both = np.concatenate([public.vectors, public.public])
    assert len(np.unique(both, axis=0)) == len(np.unique(everything.vectors, axis=0))
    for data in (public, everything, smaller(public, 200, 20)):
        distances = np.linalg.norm(data.queries[:, None].astype(float) - data.vectors[None], axis=2)
        np.testing.assert_allclose(np.sort(distances, axis=1)[:, 9], data.radius, rtol=1e-12)
    assert everything.chosen_on == slice(0, 30)
    assert everything.reported_on == slice(30, 60)


def test_recall_counts_distances_and_each_id_once() -> None:
    vectors = np.array([[float(i)] for i in range(30)], dtype=np.float32)
    vectors[20] = vectors[9]
    queries = np.zeros((2, 1), dtype=np.float32)
    data = Neighbours("line", vectors, queries, np.array([9.0, 9.0]), None)
    one = slice(0, 1)
    assert data.recall(np.arange(10)[None], one) == 1.0
    assert data.recall(np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 20]]), one) == 1.0
    assert data.recall(np.array([[0, 0, 0, 0, 0, 5, 6, -1, -1, 29]]), one) == pytest.approx(0.3)
    assert data.recall(np.array([np.arange(10), np.arange(10, 20)]), slice(0, 2)) == 0.5


def test_data_too_small_for_a_sample_are_refused() -> None:
    data = Neighbours("few", np.zeros((9, 4), np.float32), np.zeros((2, 4), np.float32), np.zeros(2), None)
    with pytest.raises(InputError, match="expected 10 true neighbours"):
        smaller(data, 9, 2)


def test_variants_begin_with_the_pictures_and_differ_after(pictures: Path) -> None:
    originals = read_protocol(pictures)[1].vectors.astype(np.uint8)
    copies = archive_costs.vary(originals, 3000)
    assert copies.shape == (3000, 784)
    assert (copies[:1300] == originals).all()
    assert len(np.unique(copies, axis=0)) >= 2995
    assert (copies == archive_costs.vary(originals, 3000)).all()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (archive_recall, "SIZES", (64, 512)),
        (archive_speed, "CROSSING", (300,)),
        (archive_speed, "CROSSING_QUERIES", 40),
        (archive_speed, "ALONE", 3),
        (archive_costs, "MILLION", 2600),
        (archive_costs, "BATCH", 20),
        (archive_costs, "_NEAR", 10),
        (archive_methods, "ITERATIONS", 2),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("small_parts")
def test_all_parts_from_end_to_end_and_kept(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    files = archive.measure_archive([], 2, tmp_path, told.append, pictures)
    assert set(files) == {"table", "figures", "sizes", "speed"}
    figures = json.loads(files["figures"].read_text())["parts"]
    assert set(figures) == set(archive.PARTS)
    row = figures["sizes"]["512"]
    assert set(row) == set(NAMES)
    assert len(row["usr-public"]["recall"]) == 2
    assert row["usr-public"]["reduced"] in map(int, row["usr-public"]["tried"])
    assert min(row["usr-public"]["reranked"]) > 0.95
    assert {"exact (IndexFlat)", "PQ 56 x 8", "RaBitQ, rotated", "HNSW (faiss)"} <= set(figures["speed"])
    assert figures["speed"]["exact (IndexFlat)"]["settings"]["0"]["recall"] == 1.0
    assert figures["million"]["file"]["same"] is True
    assert figures["million"]["file"]["bytes"] < 80
    text = files["table"].read_text()
    for expected in ("IndexLSH, raw (60,000)", "Ten million", 'update="sign"', "at most 90 bytes a vector: "):
        assert expected in text
    monkeypatch.setattr(archive_data, "read_protocol", lambda folder: pytest.fail("measured again"))
    again = archive.measure_archive([], 2, tmp_path, told.append, pictures)
    assert again["table"].read_text() == text


def sizes(ours: float, others: float, exact: float) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(NAMES, others)
    row["usr-public"] = row["usr-all"] = {"reduced": 1, "recall": [ours, ours], "reranked": [exact]}
    return {"64": {**row, "usr-public": {**row["usr-public"], "recall": [0.9]}}, "512": row}


@pytest.mark.parametrize(
    ("figures", "held"),
    [
        ({"sizes": sizes(0.8, 0.5, 0.995)}, [True] * 6),
        ({"sizes": sizes(0.6, 0.7, 0.985)}, [False, False, True, False, False, False]),
        ({"encoding": {"a": {"batches": [2e-5, 7e-5, 5e-5]}, "b": {"batches": [6e-5]}}}, [True]),
        ({"encoding": {"a": {"batches": [2e-5]}, "b": {"batches": [6.1e-5]}}}, [False]),
    ],
)
def test_verdicts_say_what_the_figures_say(figures: dict[str, Any], held: list[bool]) -> None:
    lines = verdict(figures).splitlines()
    assert [line.endswith(": met") for line in lines] == held
    assert all(line.endswith((": met", ": NOT met")) for line in lines)


def test_verdicts_on_deleting_and_bytes() -> None:
    million: dict[str, Any] = {
        "delete": {"usr-lsh": {"batch": 1e-6, "alone": 5e-6}, "faiss": {"batch": 4e-6, "alone": 4e-3}},
        "file": {"bytes": 76.0, "memory": 82.0},
    }
    lines = verdict({"million": million}).splitlines()
    assert all(line.endswith(": met") for line in lines)
    assert "4,000x" in lines[1]
    assert "both one id a call: 800x" in lines[1]
    million["delete"]["usr-lsh"] = {"batch": 9e-6, "alone": 1e-5}
    million["file"]["memory"] = 91.0
    assert [line.endswith(": met") for line in verdict({"million": million}).splitlines()] == [False] * 3
    assert "reported" not in to_markdown({})


def test_settings_are_chosen_on_the_first_half_and_crossings_interpolated() -> None:
    rows = {"1": {"chosen_on": 0.5, "recall": 1.0}, "2": {"chosen_on": 0.99, "recall": 0.9}}
    choose: Callable[..., str | None] = archive_speed.choose
    assert (choose(rows, 0.4), choose(rows, 0.6), choose(rows, 0.999)) == ("1", "2", None)

    def row(ours: float, graph: float) -> dict[str, Any]:
        return {"usr": {"seconds": ours, "setting": "1"}, "hnsw": {"seconds": graph, "setting": "1"}}

    crossing = archive_speed.crossing_size
    assert crossing({"1000": row(1.0, 2.0), "4000": row(4.0, 2.0)}) == pytest.approx(2000.0)
    assert crossing({"1000": row(3.0, 2.0), "4000": row(4.0, 2.0)}) is None
    assert crossing({"1000": row(1.0, 2.0), "4000": {"usr": None, "hnsw": None}}) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "size"], "did you mean 'sizes'"),
        (["--method", "random"], "choose parts with --task"),
        (["--tune"], "choose parts with --task"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["bench", "--suite", "archive", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_the_command_measures_a_part(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archive_costs, "BATCH", 20)
    monkeypatch.setattr(archive_data, "read_protocol", lambda folder, read=read_protocol: read(pictures))
    command = ["bench", "--suite", "archive", "--task", "encoding", "--output", str(tmp_path), "--json"]
    assert command_line(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["parts"]) == {"encoding"}
    assert told["seeds"] == archive.SEEDS
    assert "Encoding" in Path(told["files"]["table"]).read_text()
