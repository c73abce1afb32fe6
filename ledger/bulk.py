"""Many rows of one table written at once.

SQLite's driver repeats one prepared statement. PostgreSQL's would send as many statements as there
are rows; there all values go as arrays, one a column, in one statement.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    Connection,
    Table,
    TableValuedAlias,
    and_,
    any_,
    bindparam,
    column,
    func,
    insert,
    select,
    update,
)

Row = Mapping[str, Any]

_OF = "of_"
"""Before a parameter's name, which must not be that of a column."""


def insert_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows, all with the same columns."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(insert(table), rows)
        return
    names = list(rows[0])
    given = _given(table, names)
    statement = insert(table).from_select(names, select(*(given.c[name] for name in names)))
    connection.execute(statement, _arrays(names, rows))


def update_rows(
    connection: Connection, table: Table, which: Mapping[str, Any], key: str, rows: Sequence[Row]
) -> None:
    """Set the same columns of many rows.

    Args:
        connection: of a transaction that writes.
        table: where.
        which: what all of them have in common, by column.
        key: the column that tells them apart.
        rows: for each its key, and what it is set to.
    """
    if not rows:
        return
    names = [name for name in rows[0] if name != key]
    common = [table.c[name] == value for name, value in which.items()]
    statement = update(table)
    if connection.dialect.name == "sqlite":
        its = table.c[key] == bindparam(_OF + key)
        statement = statement.where(and_(*common, its))
        statement = statement.values({name: bindparam(_OF + name) for name in names})
        connection.execute(
            statement, [{_OF + name: row[name] for name in (key, *names)} for row in rows]
        )
        return
    given = _given(table, [key, *names])
    # Without statistics of the table, the join alone would read all that `which` names.
    keys = any_(bindparam(_OF + key, type_=ARRAY(table.c[key].type)))
    statement = statement.where(and_(*common, table.c[key] == keys, table.c[key] == given.c[key]))
    statement = statement.values({name: given.c[name] for name in names})
    connection.execute(statement, _arrays([key, *names], rows))


def _given(table: Table, names: Sequence[str]) -> TableValuedAlias:
    arrays = [bindparam(_OF + name, type_=ARRAY(table.c[name].type)) for name in names]
    columns: list[Column[Any]] = [column(name, table.c[name].type) for name in names]  # type: ignore[misc]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def _arrays(names: Sequence[str], rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {_OF + name: [row[name] for row in rows] for name in names}
