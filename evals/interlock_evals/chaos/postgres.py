"""A PostgreSQL server of our own, for as long as a test or a run lasts; nothing of it is left.

It listens on a socket in its own folder only. It does not wait for the disk: what is killed here is
never the machine.
"""

import glob
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
from sqlalchemy import URL

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
ACCOUNT = "postgres"  # the server refuses to run as root
WITHIN_S = 60.0
SETTINGS = (
    "listen_addresses=''",
    "fsync=off",
    "max_connections=100",
    "shared_buffers=32MB",
    "autovacuum=off",
)
Stop = Literal["fast", "immediate"]


def binaries() -> Path | None:
    """Where the server's programs are, the newest of them; None where there are none."""
    found = [Path(path) for place in PLACES for path in glob.glob(place)]  # noqa: PTH207 - absolute
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    complete = [path for path in found if (path / "initdb").exists() and (path / "pg_ctl").exists()]
    return max(complete, key=_version, default=None)


def why_not() -> str | None:
    """Why no server can be started here; None where one can."""
    if binaries() is None:
        return "the programs of a PostgreSQL server are not installed"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(ACCOUNT)
        except KeyError:
            return f"we are root, and there is no account {ACCOUNT!r} to run a server"
    return None


class Postgres:
    """A server in a folder of its own; use it as a context.

    Raises:
        RuntimeError: it could not be set up or started; what it said is in the message.
    """

    def __init__(self) -> None:
        reason, found = why_not(), binaries()
        if reason is not None or found is None:
            raise RuntimeError(reason)
        self._binaries = found
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._account = ACCOUNT if os.geteuid() == 0 else None
        self._made = 0
        if self._account is not None:
            shutil.chown(self._folder, self._account, self._account)

    def __enter__(self) -> Self:
        data = str(self._folder / "data")
        try:
            self._run("initdb", "-D", data, "-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "-N")
            self.start()
        except RuntimeError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        every = (*SETTINGS, f"unix_socket_directories={self._folder}")
        settings = " ".join(f"-c {setting}" for setting in every)
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-s", "-o", settings, "start")

    def stop(self, how: Stop = "immediate") -> None:
        """Stop it; at once and without a last word, unless told otherwise."""
        self._run("pg_ctl", "-D", self._data, "-w", "-s", "-m", how, "stop")

    def create(self, template: str = "template1") -> str:
        """A new database like the template, to which nobody may be connected; its name."""
        self._made += 1
        name = f"store_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement on the server itself; the rows, if it has any."""
        with psycopg.connect(
            host=str(self._folder), user=ACCOUNT, dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def url(self, name: str) -> URL:
        """The address of a database."""
        return URL.create(
            "postgresql+psycopg",
            username=ACCOUNT,
            database=name,
            query={"host": str(self._folder)},
        )

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(  # noqa: S603 - a program of the server, fixed words
            [str(self._binaries / program), *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program == "initdb" else subprocess.DEVNULL,
            user=self._account,
            group=self._account,
            extra_groups=None if self._account is None else [],
            timeout=WITHIN_S,
            check=False,
        )
        if done.returncode != 0:
            log = self._folder / "log"
            said = done.stdout or (log.read_bytes() if log.exists() else b"")
            raise RuntimeError(f"{program}: {said.decode(errors='replace')[-2000:]}")


def _version(path: Path) -> float:
    """The major version in a path such as /usr/lib/postgresql/15/bin; 0 where it says none."""
    found = re.search(r"\d+(\.\d+)?", str(path))
    return float(found.group()) if found else 0.0
