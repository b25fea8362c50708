"""From a YAML file to a checked campaign, with one line per mistake that says where it stands.

May import PyYAML, pydantic, :mod:`pilotwave.config` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from pilotwave.config import registry
from pilotwave.config.campaign import DEFAULT_KINDS, CampaignConfig, campaign_model
from pilotwave.config.components import GROUPS
from pilotwave.errors import ConfigError

KeyPath = tuple[str | int, ...]


def load_campaign(path: Path, overrides: Sequence[str] = ()) -> CampaignConfig:
    """Reads, overrides and checks a campaign file; packages and checkpoints are not looked at yet.

    Args:
        path: The YAML file.
        overrides: ``"budget.queries=400"``: dotted key and YAML value; a number counts into a list.

    Raises:
        ConfigError: One line that says what was expected, what came and where.
    """
    fields, lines = read_yaml(path)
    if {"search", "campaign"} <= fields.keys():
        raise ConfigError(f"{path} is a study, not a campaign; run it with: pilotwave tune {path}")
    for override in overrides:
        apply_override(fields, override)
    return check_campaign(fields, source=str(path), base_dir=path.parent, lines=lines)


def check_campaign(
    fields: Mapping[str, Any],
    *,
    source: str = "campaign",
    base_dir: Path | None = None,
    lines: Mapping[KeyPath, int] | None = None,
) -> CampaignConfig:
    """Checks the fields of a campaign.

    Args:
        fields: What the file says.
        source: What to call it in messages.
        base_dir: Relative paths in the file are taken from here; the working directory by default.
        lines: The line of each key, for messages.

    Raises:
        ConfigError: One line that says what was expected, what came and where.
    """
    lines = lines or {}
    fields = _with_default_kinds(fields)
    _check_kinds(fields, source, lines)
    try:
        context = {"base_dir": (base_dir or Path()).resolve()}
        checked = campaign_model().model_validate(fields, context=context)
        # The narrowed model is made at run time and would not pickle; its sections do.
        return CampaignConfig(**{name: getattr(checked, name) for name in CampaignConfig.model_fields})
    except ValidationError as error:
        raise ConfigError(_explain(error, source, lines)) from error


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Reads a YAML mapping and the line on which each of its keys stands.

    Raises:
        ConfigError: The file cannot be read, is not YAML, is no mapping, or says a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a campaign file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Parses YAML text; see :func:`read_yaml`."""
    lines: dict[KeyPath, int] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{source}: expected a mapping such as 'name: my-campaign', got {_kind_of(root)}")
        _index_lines(root, (), lines, source, set())
        fields = yaml.safe_load(text)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{source}: {where}not valid YAML: {_one_line(error.problem or str(error))}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{source}: not valid YAML: {_one_line(str(error))}") from None
    return fields, lines


def apply_override(fields: dict[str, Any], override: str) -> None:
    """Sets one value in place, making sections on the way.

    Raises:
        ConfigError: The override is not ``key.key=value`` or leads through something that is no section.
    """
    dotted, separator, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: expected key.key=value, e.g. --set budget.queries=400")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {_one_line(str(error))}") from None
    try:
        set_field(fields, dotted.strip(), value)
    except ConfigError as error:
        raise ConfigError(f"--set {override}: {error}") from None


def set_field(fields: dict[str, Any], dotted: str, value: Any) -> None:
    """Sets one value in place, making sections on the way.

    Args:
        fields: Of a campaign or study.
        dotted: ``"budget.queries"``; a number counts into a list.
        value: What stands there from now on.

    Raises:
        ConfigError: It leads through something that is no section.
    """
    keys = dotted.split(".")
    place: Any = fields
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(place, list):
            if not key.isdigit() or int(key) >= len(place):
                at = ".".join(keys[:depth])
                raise ConfigError(f"{at} is a list of {len(place)}; expected a number below that")
            index: Any = int(key)
        elif isinstance(place, dict):
            index = key
            if not last:
                place.setdefault(key, {})
        else:
            raise ConfigError(f"{'.'.join(keys[:depth])} is a value, not a section")
        if last:
            place[index] = value
        else:
            place = place[index]


def _with_default_kinds(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lets ``runtime: {evaluators: 4}`` mean the default kind of runtime."""
    filled = dict(fields)
    for section, kind in DEFAULT_KINDS.items():
        given = filled.get(section)
        if isinstance(given, Mapping) and "kind" not in given:
            filled[section] = {"kind": kind, **given}
    return filled


def _check_kinds(fields: Mapping[str, Any], source: str, lines: Mapping[KeyPath, int]) -> None:
    """Refuses an unknown kind with the nearest name before pydantic lists the whole union."""
    sections: list[tuple[str, KeyPath, Any]] = [
        (section, (section,), fields.get(section)) for section in GROUPS if section != "constraint"
    ]
    constraints = fields.get("constraints")
    if isinstance(constraints, list | tuple):
        sections += [("constraint", ("constraints", i), item) for i, item in enumerate(constraints)]
    for section, at, item in sections:
        if isinstance(item, Mapping) and isinstance(item.get("kind"), str):
            try:
                registry.load(section, item["kind"])
            except ConfigError as error:
                raise ConfigError(f"{_where(source, (*at, 'kind'), lines)}: {error}") from None


def _explain(error: ValidationError, source: str, lines: Mapping[KeyPath, int]) -> str:
    # A misspelt key is also a missing one; its own line tells more.
    found = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    first, *others = found
    location = tuple(part for part in first["loc"] if not _is_tag(part, first["loc"]))
    message = _one_line(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key{_near_key(location)}; remove it or mend its name"
    elif first["type"] == "missing":
        message = "this key is missing; add it"
    elif first["type"] in ("union_tag_not_found", "model_attributes_type", "model_type"):
        in_kind = str(location[0]) in GROUPS or location[0] == "constraints"
        message = "expected a mapping with the key 'kind'" if in_kind else "expected a mapping, key: value"
    elif first["type"] not in ("value_error", "assertion_error"):
        got = repr(first["input"])
        message = f"{message}, got {got if len(got) <= 60 else got[:57] + '...'}"
    more = f" (and {len(others)} more)" if others else ""
    return _one_line(f"{_where(source, location, lines)}: {message}{more}")  # a key may hold a line break


def _is_tag(part: str | int, location: Sequence[str | int]) -> bool:
    """Says whether a part of a pydantic location is a union's tag rather than a key of the file."""
    place = list(location).index(part)
    if not isinstance(part, str) or place == 0:
        return False
    before = location[place - 1]
    section = "constraint" if location[0] == "constraints" else str(location[0])
    is_choice = before == location[0] if section != "constraint" else place == 2
    return is_choice and section in GROUPS and part in registry.choices(section)


def _near_key(location: KeyPath) -> str:
    """Suggests a key of the section that holds the unknown one."""
    model: Any = campaign_model()
    if len(location) > 1:
        annotation = model.model_fields.get(str(location[0]))
        model = annotation.annotation if annotation is not None else None
        if type(None) in get_args(model):  # a section that may be absent
            model = get_args(model)[0]
    known: dict[str, object] = {}
    if isinstance(model, type) and hasattr(model, "model_fields"):
        known = dict(model.model_fields)
    elif len(location) > 1:
        section = "constraint" if location[0] == "constraints" else str(location[0])
        for choice in registry.available(section) if section in GROUPS else ():
            known.update(choice.model_fields)
    known.pop(str(location[-1]), None)  # another kind of the same section may have this very key
    return registry.suggestion(str(location[-1]), known)


def _where(source: str, location: KeyPath, lines: Mapping[KeyPath, int]) -> str:
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    dotted = ".".join(str(part) for part in location)
    parts = [source, f"line {line}" if line else "", dotted]
    return ": ".join(part for part in parts if part)


def _index_lines(node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], source: str, above: set[int]) -> None:
    if id(node) in above:
        raise ConfigError(f"{source}: line {node.start_mark.line + 1}: a YAML alias contains itself")
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{source}: line {line}: a key must be a plain word")
            if key.value in seen:
                raise ConfigError(f"{source}: line {line}: the key {key.value!r} is said twice; keep one")
            seen.add(key.value)
            lines[(*at, key.value)] = line
            _index_lines(value, (*at, key.value), lines, source, above)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*at, i)] = value.start_mark.line + 1
            _index_lines(value, (*at, i), lines, source, above)


def _kind_of(node: yaml.Node | None) -> str:
    if node is None:
        return "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _one_line(text: str) -> str:
    return " ".join(text.split())


__all__ = ["apply_override", "check_campaign", "load_campaign", "parse_yaml", "read_yaml", "set_field"]
