"""The file of an index: every byte is guarded, and a crash leaves the old file or the new one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.archive import UsrLshIndex
from pilotwave.archive.usr_lsh.files import _header
from pilotwave.errors import CheckpointError, StorageError

Draw = Callable[..., np.ndarray]
ARRAYS = ("anchor", "projection", "rows", "ids", "codes", "factors", "norms")


@pytest.fixture(scope="module")
def stored(draw: Draw, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UsrLshIndex]:
    index = UsrLshIndex(9, 64, draw(30, 9, seed=1), reduced=5)
    index.add(np.arange(0, 74, 2), draw(37, 9))
    path = tmp_path_factory.mktemp("stored") / "index.usr"
    index.save(path)
    return path, index


def places_of(path: Path) -> dict[str, dict[str, int]]:
    block = path.read_bytes()[:4096]
    length = struct.unpack_from("<I", block, 12)[0]
    arrays: dict[str, dict[str, int]] = json.loads(block[48 : 48 + length])["arrays"]
    return arrays


def test_an_index_comes_back_as_it_was(stored: tuple[Path, UsrLshIndex], draw: Draw) -> None:
    path, index = stored
    loaded = UsrLshIndex.load(path)
    assert loaded.digest() == index.digest()
    assert (loaded.dim, loaded.bits, loaded.reduced, loaded.scale) == (9, 64, 5, index.scale)
    queries = draw(5, 9, seed=2)
    for ours, theirs in zip(loaded.search(queries, 4), index.search(queries, 4), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    empty = path.with_name("empty.usr")
    index.empty_copy().save(empty)
    assert len(UsrLshIndex.load(empty)) == 0
    again = UsrLshIndex.load(empty)
    again.add([5], draw(1, 9))
    assert again.search(draw(1, 9), 1)[1].tolist() == [[5]]


def test_codes_are_mapped_and_the_file_changes_only_when_saved(stored: tuple[Path, UsrLshIndex]) -> None:
    path, index = stored
    before = path.read_bytes()
    loaded = UsrLshIndex.load(path)
    base = loaded._slots.codes
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert type(base).__name__ == "mmap"
    assert loaded.remove([0, 36]) == []
    assert path.read_bytes() == before
    assert UsrLshIndex.load(path).digest() == index.digest() != loaded.digest()
    other = path.with_name("other.usr")
    loaded.save(other)
    loaded.save(other)
    assert UsrLshIndex.load(other).digest() == loaded.digest()
    shrunk = UsrLshIndex.load(path)
    shrunk.save(path)
    assert path.read_bytes() == before


def test_flipped_bits_are_detected_wherever_they_are(stored: tuple[Path, UsrLshIndex], tmp_path: Path) -> None:
    data = stored[0].read_bytes()
    assert len(data) < 8192
    damaged = tmp_path / "index.usr"
    random = np.random.default_rng(0)
    for place in (*range(64), *range(64, len(data), 3)):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        damaged.write_bytes(changed)
        with pytest.raises(CheckpointError, match="damaged"):
            UsrLshIndex.load(damaged)


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_damaged_is_named(stored: tuple[Path, UsrLshIndex], tmp_path: Path, name: str) -> None:
    path, place = stored[0], places_of(stored[0])[name]
    for offset in (0, place["bytes"] // 2, place["bytes"] - 1):  # the last byte is padding
        changed = bytearray(path.read_bytes())
        changed[place["start"] + offset] ^= 16
        damaged = tmp_path / "index.usr"
        damaged.write_bytes(changed)
        with pytest.raises(
            CheckpointError, match=rf"index\.usr, but its {name} are damaged .*build the index anew"
        ):
            UsrLshIndex.load(damaged)


@given(length=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_truncated_and_longer_files_are_refused(
    stored: tuple[Path, UsrLshIndex], tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    data = stored[0].read_bytes()
    if length == len(data):
        length += 1
    cut = tmp_path_factory.getbasetemp() / "cut.usr"
    cut.write_bytes(data[:length] if length < len(data) else data + bytes(length - len(data)))
    with pytest.raises(CheckpointError, match="truncated"):
        UsrLshIndex.load(cut)


@given(st.binary(max_size=9000))
@settings(max_examples=60, deadline=None)
def test_foreign_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "foreign.usr"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="expected an index"):
        UsrLshIndex.load(path)


def test_missing_unreadable_newer_and_senseless_files(stored: tuple[Path, UsrLshIndex], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        UsrLshIndex.load(tmp_path / "none.usr")
    with pytest.raises(StorageError, match="could not read"):
        UsrLshIndex.load(tmp_path)
    newer = bytearray(stored[0].read_bytes()[:4096])
    newer[8] = 2
    newer[16:48] = bytes(32)
    newer[16:48] = hashlib.sha256(newer).digest()
    path = tmp_path / "newer.usr"
    path.write_bytes(newer)
    with pytest.raises(CheckpointError, match="expected an index of format 1, got 2; use a newer pilotwave"):
        UsrLshIndex.load(path)
    for text in (b"{}", b"[]", b'{"arrays": {}}', b'{"arrays": {}, "settings": {}}', b"nonsense"):
        path.write_bytes(_header(text))
        with pytest.raises(CheckpointError, match=r"header (describes no index|is not JSON)"):
            UsrLshIndex.load(path)


def test_a_place_that_cannot_be_written_is_one_line(stored: tuple[Path, UsrLshIndex], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not write"):
        stored[1].save(tmp_path / "file" / "index.usr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="could not write"):
        stored[1].save(tmp_path / "folder")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder"]


SAVER = textwrap.dedent(
    """
    import sys
    from pilotwave.archive import UsrLshIndex

    small, large = (UsrLshIndex.load(path) for path in sys.argv[1:3])
    print("ready", flush=True)
    while True:
        large.save(sys.argv[3])
        small.save(sys.argv[3])
    """
)


def test_killed_while_saving_leaves_one_whole_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    small, large = UsrLshIndex(4, 64), UsrLshIndex(4, 64)
    small.add([1], random.standard_normal((1, 4)))
    large.add(np.arange(200_000), random.standard_normal((200_000, 4)))
    for name, index in (("small", small), ("large", large)):
        index.save(tmp_path / name)
    digests = {small.digest(), large.digest()}
    target = tmp_path / "index.usr"
    small.save(target)
    seen = set()
    for _ in range(8):
        command = [sys.executable, "-c", SAVER, str(tmp_path / "small"), str(tmp_path / "large"), str(target)]
        saver = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert saver.stdout is not None
        assert saver.stdout.readline() == b"ready\n"
        time.sleep(float(random.uniform(0.0, 0.12)))
        os.kill(saver.pid, signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        found = UsrLshIndex.load(target).digest()
        assert found in digests
        seen.add(found)
    small.save(target)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["index.usr", "large", "small"]
    assert UsrLshIndex.load(target).digest() == small.digest()
