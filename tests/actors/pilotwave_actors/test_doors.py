"""Tokens, modes and addresses, as far as no cluster is needed for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave.errors import InfrastructureError, InputError
from pilotwave_actors.authentication import say_mode, token_for
from pilotwave_actors.reachable import check_dashboard, check_reachable, resolve


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a token, a mode or a cluster."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that what is set below is taken back afterwards
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_the_mode_is_always_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert say_mode("local") == "disabled"
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert say_mode("auto") == "token"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert say_mode("local") == "token"  # what was said is kept
    monkeypatch.setenv("RAY_AUTH_MODE", "perhaps")
    with pytest.raises(InputError, match="RAY_AUTH_MODE: expected token or disabled, got 'perhaps'"):
        say_mode("auto")


def test_a_token_comes_from_the_environment_or_a_file(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"wants a token and there is none: set RAY_AUTH_TOKEN"):
        token_for("host:6379")
    (nobody / ".ray").mkdir()
    (nobody / ".ray" / "auth_token").write_text(" at home\n")
    assert token_for("host:6379") == "at home"
    (nobody / "named").write_text("named\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(nobody / "named"))
    assert token_for("host:6379") == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "said")
    assert token_for("host:6379") == "said"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(nobody / "nothing"))
    with pytest.raises(InputError, match=r"RAY_AUTH_TOKEN_PATH: .*nothing cannot be read: No such file"):
        token_for("host:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_for("host:6379") is None


def test_auto_is_what_ray_itself_would_take(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InfrastructureError, match="belongs to no Ray cluster"):
        resolve("auto")
    (nobody / "ray").mkdir()
    (nobody / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    assert resolve("auto") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "ray://there:10001")
    assert resolve("auto") == "ray://there:10001"
    assert resolve("host:6379") == "host:6379"


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_nobody_there_is_one_line(prefix: str, deaf_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token")
    monkeypatch.setattr("pilotwave_actors.reachable.SECONDS", 0.5)
    with pytest.raises(InfrastructureError, match=r"nobody can be reached at .*:1 \(.*refused"):
        check_reachable(f"{prefix}127.0.0.1:1")
    with pytest.raises(InfrastructureError, match=r"nobody can be reached at .*; check the address"):
        check_reachable(f"{prefix}127.0.0.1:{deaf_port}")
    with pytest.raises(InfrastructureError, match="nobody can be reached"):
        check_reachable(f"{prefix}no-such-host.invalid:6379")


def test_no_dashboard_is_one_line(deaf_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("requests")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token")
    monkeypatch.setattr("pilotwave_actors.reachable.SECONDS", 0.5)
    with pytest.raises(InfrastructureError, match=r"nobody can be reached at http://127.0.0.1:1 "):
        check_dashboard("http://127.0.0.1:1")
    with pytest.raises(InfrastructureError, match="no answer in time"):
        check_dashboard(f"http://127.0.0.1:{deaf_port}")
    with pytest.raises(InputError, match="expected http://host:8265"):
        check_dashboard("127.0.0.1:8265")
