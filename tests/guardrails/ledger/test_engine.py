"""The store keeps what it committed, and two writers never build on the same state."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError

from interlock_guardrails.engine import (
    create_store_engine,
    create_tables,
    read_only,
    store_address,
)
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.rows import LOCK_HEAD
from interlock_tools.errors import InvalidRequestError


def test_sqlite_is_set_up_to_survive_a_power_cut(store: Engine) -> None:
    """Every connection, not only the first."""
    names = ("journal_mode", "synchronous", "foreign_keys")
    readers = read_only(store)
    with readers.connect() as one, readers.connect() as another:
        for connection in (one, another):
            answers = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names]
            assert answers == ["wal", 2, 1]


def test_a_reader_sees_one_moment_and_holds_up_no_writer(store: Engine, ledger: Ledger) -> None:
    """An export may take minutes."""
    count = text("SELECT count(*) FROM ledger_record")
    with read_only(store).connect() as reader:
        assert reader.execute(count).scalar() == 0
        with store.begin() as writer:
            ledger.append(writer, RecordKind.STOP, {})
        assert reader.execute(count).scalar() == 0
    with read_only(store).connect() as reader:
        assert reader.execute(count).scalar() == 1


def test_creating_the_tables_again_changes_nothing(store: Engine, ledger: Ledger) -> None:
    """Every process does it at its start."""
    with store.begin() as connection:
        ledger.append(connection, RecordKind.STOP, {})
    create_tables(store)
    assert ledger.size_and_root()[0] == 1


def test_postgresql_locks_the_head_of_the_log() -> None:
    """There, the row lock is what makes one sequencer of several replicas."""
    assert str(LOCK_HEAD.compile(dialect=make_url("postgresql://").get_dialect()())).endswith(
        "FOR UPDATE"
    )


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "mysql://h/x"],
)
def test_a_store_that_could_not_keep_its_word_is_refused(url: str) -> None:
    """In memory it is gone with the process; on another database nothing was tested."""
    with pytest.raises(InvalidRequestError, match="the store"):
        create_store_engine(url)


def test_a_store_in_a_missing_folder_fails_at_once(tmp_path: Path) -> None:
    """It is not created somewhere else."""
    engine = create_store_engine(f"sqlite:///{tmp_path / 'missing' / 'store.db'}")
    with pytest.raises(OperationalError):
        create_tables(engine)
    engine.dispose()


def test_a_store_is_a_file_beside_the_keys_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds a password stands in the environment; a plain address may stand in the file."""
    monkeypatch.setenv("STORE", "postgresql://interlock:secret@db/store")

    assert store_address(tmp_path).database == str(tmp_path / "interlock.db")
    assert store_address(tmp_path, "postgresql://db/store").drivername == "postgresql+psycopg"
    assert store_address(tmp_path, url_env="STORE").password == "secret"  # noqa: S105 - made up


@pytest.mark.parametrize(
    ("url", "url_env"),
    [
        ("postgresql://interlock:secret@db/store", None),
        ("postgresql://db/store?password=secret", None),
        ("secret", None),
        ("postgresql://db/store", "STORE"),
        (None, "NO_SUCH_STORE"),
    ],
)
def test_an_address_that_tells_a_secret_or_leads_nowhere_is_refused_without_repeating_it(
    url: str | None, url_env: str | None, tmp_path: Path
) -> None:
    """Settings files are read by many, and errors are logged."""
    with pytest.raises(InvalidRequestError, match="store_url") as refused:
        store_address(tmp_path, url, url_env)
    assert "secret" not in str(refused.value)
