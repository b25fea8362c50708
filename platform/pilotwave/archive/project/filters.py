"""A condition in SQL over the columns of the archive: checked to be nothing else, then evaluated by DuckDB.

The condition is parsed first. A statement, a second statement, a sub-query or an unknown column is refused before
anything runs, and the database that evaluates it sees one table in memory and may reach no file and no network.
May import pyarrow, duckdb and the archive's own modules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pilotwave.archive.project import schema
from pilotwave.archive.project.digests import Rows
from pilotwave.archive.project.errors import ArchiveError
from pilotwave.errors import MissingDependencyError

_ROW = "__row"
_REFUSED = {"SUBQUERY": "a sub-query", "WINDOW": "a window function", "STAR": "*", "PARAMETER": "a parameter"}


def columns_of(condition: str) -> list[str]:
    """Returns the columns that a condition speaks of.

    Raises:
        ArchiveError: It is no condition, or speaks of a column that is not there.
    """
    tree = _parse(condition)
    names = []
    for node in _nodes(tree):
        kind = node.get("class")
        if kind in _REFUSED:
            raise ArchiveError(f"the filter {condition!r} holds {_REFUSED[kind]}; {_expected()}")
        if kind == "COLUMN_REF":
            names.append(_column(node["column_names"], condition))
    return list(dict.fromkeys(names))


def matching_rows(condition: str, read: Callable[[list[str]], pa.Table]) -> Rows:
    """Returns the rows for which a condition holds, in order.

    Args:
        condition: For example ``"value > 60 and oracle like 'xtb:%'"``.
        read: Returns all rows of the columns it is given.

    Raises:
        ArchiveError: The condition is wrong; one line that says how.
    """
    columns = columns_of(condition)
    table = read(columns or ["status"])
    numbered = table.append_column(_ROW, pa.array(np.arange(table.num_rows)))
    connection = _connection()
    try:
        connection.register("records", numbered)
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        found = connection.execute(f"SELECT {_ROW} FROM records WHERE (\n{condition}\n) ORDER BY {_ROW}")
        return np.asarray(found.fetchnumpy()[_ROW], dtype=np.int64)
    except _database_errors() as error:
        raise ArchiveError(f"the filter {condition!r} is wrong: {_first_line(error)}; {_expected()}") from error
    finally:
        connection.close()


def _parse(condition: str) -> dict[str, Any]:
    if not condition.strip():
        raise ArchiveError(f"the filter is empty; {_expected()}")
    connection = _connection()
    try:
        # A line break before the bracket ends a comment that the condition may close with.
        query = f"SELECT 1 FROM records WHERE (\n{condition}\n)"
        said = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()[0])
    except _database_errors() as error:
        raise ArchiveError(f"the filter {condition!r} is wrong: {_first_line(error)}; {_expected()}") from error
    finally:
        connection.close()
    if said["error"]:
        raise ArchiveError(f"the filter {condition!r} is wrong: {said['error_message']}; {_expected()}")
    statements = said["statements"]
    node = statements[0]["node"]
    alone = (
        len(statements) == 1
        and node["type"] == "SELECT_NODE"
        and not node["modifiers"]
        and not node["group_expressions"]
        and not any(node[name] for name in ("having", "qualify", "sample"))
        and not node["cte_map"]["map"]
        and node["from_table"]["type"] == "BASE_TABLE"
        and len(node["select_list"]) == 1
        and node["where_clause"] is not None
    )
    if not alone:
        raise ArchiveError(f"the filter {condition!r} is more than a condition; {_expected()}")
    where: dict[str, Any] = node["where_clause"]
    return where


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _column(words: list[str], condition: str) -> str:
    name = words[-1] if words[:-1] in ([], ["records"]) else ".".join(words)
    known: dict[str, str] = {item.lower(): item for item in schema.schema().names}
    if name.lower() not in known:
        raise ArchiveError(f"the filter {condition!r} speaks of a column {name!r} that is not there; {_expected()}")
    return known[name.lower()]


def _expected() -> str:
    return f"expected a condition such as \"value > 60 and status = 'ok'\" over {', '.join(schema.light_columns())}"


def _connection() -> Any:
    try:
        import duckdb
    except ImportError as missing:
        raise MissingDependencyError(
            "a filter needs duckdb, which is not installed; run: pip install 'pilotwave[archive]'"
        ) from missing
    return duckdb.connect(
        config={
            "threads": "1",
            "python_enable_replacements": "false",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
        }
    )


def _database_errors() -> type[Exception]:
    import duckdb

    return duckdb.Error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


__all__ = ["columns_of", "matching_rows"]
