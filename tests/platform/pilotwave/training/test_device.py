"""Names of devices: what is there is found, everything else is refused in one line."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.errors import InputError
from pilotwave.training.device import choose_device, describe_device, processor_name


def test_what_is_there_is_found() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="torch sees"):
        choose_device(f"cuda:{torch.cuda.device_count()}")


@given(name=st.sampled_from(["gpu", "mps", "meta", "", "cuda:x", "cpu "]) | st.text(max_size=8))
def test_other_names_are_refused_in_one_line(name: str) -> None:
    if name in ("auto", "cpu") or name.startswith(("cpu:", "cuda")):
        return
    with pytest.raises(InputError, match="expected device auto"):
        choose_device(name)


def test_a_device_is_described_in_words(tmp_path: Path) -> None:
    assert describe_device(torch.device("cpu"), threads=1).startswith("one process of 1 thread, ")
    assert describe_device(torch.device("cpu"), threads=4, processes=2).startswith("2 processes of 4 threads, ")
    listing = tmp_path / "cpuinfo"
    listing.write_text(
        "processor : 0\nmodel name\t: Fast   CPU 3000\nprocessor : 1\nmodel name\t: Fast   CPU 3000\n"
    )
    assert processor_name(listing) == "Fast CPU 3000"
    assert processor_name(tmp_path / "nothing") == platform.machine()
