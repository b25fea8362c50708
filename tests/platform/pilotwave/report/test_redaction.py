"""Secrets do not reach what is kept; everything else does."""

from __future__ import annotations

import pytest

from pilotwave.report.redaction import make_redactor

ENVIRONMENT = {
    "RAY_AUTH_TOKEN": "0123456789abcdef",
    "OPENAI_API_KEY": "sk-live-aaaa",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AUTH_TOKEN_PATH": "/etc/ray/token",
    "DB_PASSWORD": "abc",
    "HOME": "/home/somebody",
}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("refused: 0123456789abcdef is not valid", "refused: *** is not valid"),
        ("the key sk-live-aaaa has expired", "the key *** has expired"),
        ("token=hunter2hunter2; retry", "token=***; retry"),
        ('{"api_key": "hunter2", "model": "x"}', '{"api_key": "***", "model": "x"}'),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ("postgresql://alice:secret@db:5432/runs", "postgresql://***@db:5432/runs"),
        ("DB_PASSWORD=abc", "DB_PASSWORD=***"),
    ],
)
def test_secrets_are_hidden(text: str, kept: str) -> None:
    assert make_redactor(ENVIRONMENT)(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "authentication is disabled; the file is /etc/ray/token",
        "scf: no convergence after 250 cycles in /home/somebody/runs",
        "p0003-07: 0.123456 [1.2 s]",
        "http://head:8265/api/jobs",
        "3 tokens were generated",
    ],
)
def test_everything_else_is_kept(text: str) -> None:
    assert make_redactor(ENVIRONMENT)(text) == text
