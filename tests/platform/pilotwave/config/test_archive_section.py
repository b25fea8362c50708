"""The ``archive`` section of a campaign file: what it takes, and what of it belongs to the campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave.config.campaign import CampaignConfig
from pilotwave.config.loading import check_campaign, load_campaign
from pilotwave.errors import ConfigError


def checked(archive: dict[str, Any] | None, **fields: Any) -> CampaignConfig:
    return check_campaign(
        {
            "backbone": {"kind": "analytic"},
            "oracle": {"kind": "python", "function": "pilotwave.testing.faulty_oracles:score"},
            "budget": {"queries": 8, "batch_size": 4},
            "archive": archive,
            **fields,
        }
    )


def section(text: str, tmp_path: Path) -> CampaignConfig:
    path = tmp_path / "campaign.yaml"
    fields = checked(None).model_dump(mode="json", include={"backbone", "oracle", "budget"})
    path.write_text(yaml.safe_dump(fields) + f"archive: {text}\n")
    return load_campaign(path)


def test_a_path_starts_at_the_campaign_file(tmp_path: Path) -> None:
    archive = section("{path: memory/all}", tmp_path).archive
    assert archive is not None
    assert archive.path == tmp_path / "memory" / "all"
    assert (archive.contributor, archive.reuse, archive.latents, archive.warm_start) == ("", None, "float16", 0)


def test_a_bare_off_is_off_although_yaml_says_false(tmp_path: Path) -> None:
    archive = section("{path: memory, reuse: off}", tmp_path).archive
    assert archive is not None
    assert archive.reuse == "off"


def test_near_has_defaults_and_is_read_back(tmp_path: Path) -> None:
    config = section("{path: memory, reuse: near}", tmp_path)
    assert config.archive is not None
    assert (config.archive.radius, config.archive.near) == (0.05, "reuse")
    again = check_campaign(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config
    assert again.identity() == config.identity()


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        ({}, "archive.path: this key is missing"),
        ({"path": ""}, "expected the path of a folder"),
        ({"path": "a", "radius": 0.1}, "radius is for near answers only; add reuse: near, or remove radius"),
        ({"path": "a", "reuse": "exact", "near": "query"}, "near is for near answers only"),
        ({"path": "a", "reuse": "near", "radius": 0}, "archive.radius: Input should be greater than 0"),
        ({"path": "a", "reuse": True}, "archive.reuse: Input should be 'off', 'exact' or 'near'"),
        ({"path": "a", "warm_start": -1}, "archive.warm_start"),
        ({"path": "a", "contributer": "eve"}, "did you mean 'contributor'?"),
        (3, "archive: expected a mapping"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(archive: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(archive)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_changes_the_questions_is_part_of_the_campaign() -> None:
    without = checked(None).identity()
    only_written = checked({"path": "a", "reuse": "off"}).identity()
    assert only_written == without
    one = checked({"path": "a", "contributor": "alice"}).identity()
    assert one != without
    assert one == checked({"path": "b", "contributor": "bob", "latents": "float32"}).identity()
    others = [
        {"reuse": "exact"},
        {"reuse": "near"},
        {"reuse": "near", "radius": 0.1},
        {"reuse": "near", "near": "average"},
        {"warm_start": 5},
        {"reuse": "off", "warm_start": 5},
    ]
    identities = {checked({"path": "a", **other}).identity() for other in others} | {one, without}
    assert len(identities) == len(others) + 2
