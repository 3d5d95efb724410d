"""A store of any version that was ever opened becomes the present one, with its rows kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, Table, inspect, text

from interlock_guardrails import changes
from interlock_guardrails.engine import create_tables
from interlock_guardrails.metadata import metadata
from interlock_guardrails.migrations import migrate, newest, version_of
from interlock_guardrails.stop import stop_state
from interlock_tools.change import ChangeState
from interlock_tools.errors import ConflictError
from tests.guardrails.conftest import House, Keys, house_on, person
from tests.guardrails.stores import NAMES, new_url, opened

OPERATOR = person("person:operator-1", "operator")
MODULES_WITH_TABLES = (changes, stop_state)  # and those that the engine imports
FIRST = "0001"
BEFORE_BUDGETS = "0002"
VERSION_TABLE = "alembic_version"


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty store of either kind."""
    with opened(new_url(request.param, tmp_path, request)) as engine:
        yield engine


def version(engine: Engine) -> str | None:
    """The version of the store."""
    with engine.connect() as connection:
        return version_of(connection)


def in_force(engine: Engine) -> list[object]:
    """How the store differs from what the code works with."""

    def ours(_object: object, name: str | None, kind: str, *_: object) -> bool:
        return not (kind == "table" and name == VERSION_TABLE)

    options = {"compare_type": True, "include_object": ours}
    with engine.connect() as connection:
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )


@pytest.mark.parametrize("to", [None, newest()], ids=["made", "by revisions"])
def test_a_new_store_is_what_the_code_works_with(engine: Engine, to: str | None) -> None:
    """Revisions are written by hand: nothing may be forgotten in them."""
    migrate(engine, to)

    assert version(engine) == newest()
    assert in_force(engine) == []


def test_a_store_that_is_up_to_date_is_left_alone(engine: Engine) -> None:
    """Every process does it at its start."""
    migrate(engine)
    migrate(engine)

    assert version(engine) == newest()


async def test_an_older_version_becomes_the_present_one_with_its_rows(engine: Engine) -> None:
    """What was asked for before the upgrade is approved and done after it, on the same ledger."""
    keys = Keys.generate()
    migrate(engine)
    with house_on(engine, keys=keys) as house:
        change = await house.propose(50)
        house.ledger.checkpoint()
    back_to(engine, FIRST)
    assert version(engine) == FIRST

    migrate(engine)

    assert in_force(engine) == []
    with house_on(engine, keys=keys) as house:
        assert await done(house, change.change_id) is ChangeState.SUCCEEDED
        house.ledger.checkpoint()
        assert house.ledger.verify_self().ok


async def test_what_was_moved_before_budgets_counts_after_the_upgrade(engine: Engine) -> None:
    """From the document; without a reach, or where it cannot be read, a change spends nothing."""
    migrate(engine)
    with house_on(engine) as house:
        moved, unreadable = await house.propose(40), await house.propose(50)
        house.valve.missing.add("valve.serial")
        unknown = await house.propose(60)
    with engine.begin() as connection:
        broken = {"id": unreadable.change_id}
        connection.execute(
            text("UPDATE changes SET document = 'torn' WHERE change_id = :id"), broken
        )
    back_to(engine, BEFORE_BUDGETS)
    assert version(engine) == BEFORE_BUDGETS

    migrate(engine)

    assert in_force(engine) == []
    with engine.connect() as connection:
        found = connection.execute(text("SELECT change_id, watts_moved, gpus FROM changes"))
        assert {row.change_id: (row.watts_moved, row.gpus) for row in found} == {
            moved.change_id: (60, 8),
            unreadable.change_id: (0, 0),
            unknown.change_id: (0, 0),
        }


async def done(house: House, change_id: str) -> ChangeState:
    """Approve it and bring it to its end."""
    change = await house.guard.get(change_id)
    await house.approve(change, OPERATOR)
    async with house.working():
        return (await house.end_of(change)).state


@pytest.mark.parametrize("older", [True, False])
async def test_a_store_from_before_versions_were_kept_is_brought_along(
    engine: Engine, older: bool
) -> None:
    """Its tables were made without a version: those of the first, or those of the second."""
    create_tables(engine)
    keys = Keys.generate()
    with house_on(engine, keys=keys) as house:
        change = await house.propose(50)
    if older:
        back_to(engine, FIRST)
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    assert version(engine) is None

    migrate(engine)

    assert version(engine) == newest()
    assert in_force(engine) == []
    with house_on(engine, keys=keys) as house:
        assert (await house.guard.get(change.change_id)).change_id == change.change_id


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(engine: Engine) -> None:
    """We do not know what its columns mean."""
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    before = inspect(engine).get_table_names()

    with pytest.raises(ConflictError, match="version 0999"):
        migrate(engine)

    assert version(engine) == "0999"
    assert inspect(engine).get_table_names() == before


def back_to(engine: Engine, older: str) -> None:
    """Make it a store of an older version: the rows of its tables, and nothing else."""
    then = MetaData()
    with engine.begin() as connection:
        kept = {table: rows_of(connection, table) for table in table_names(connection)}
        for table in kept:
            connection.execute(text(f'DROP TABLE "{table}"'))
    migrate(engine, older)
    with engine.begin() as connection:
        then.reflect(connection)
        for name, rows in kept.items():
            if rows and name in then.tables and name != VERSION_TABLE:
                connection.execute(then.tables[name].insert(), known(then.tables[name], rows))


def table_names(connection: Connection) -> list[str]:
    """Every table of the store."""
    return inspect(connection).get_table_names()


def rows_of(connection: Connection, name: str) -> list[dict[str, object]]:
    """All that a table holds."""
    found = connection.execute(text(f'SELECT * FROM "{name}"'))  # noqa: S608 - a name of ours
    return [dict(row) for row in found.mappings()]


def known(table: Table, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows without the columns that this table does not have."""
    return [{key: row[key] for key in row if key in table.columns} for row in rows]
