"""Runs of chaos on one store: begin, kill, let others finish, look, and again."""

import os
import select
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, text

from interlock_evals.chaos.checks import Found, look
from interlock_evals.chaos.postgres import Postgres
from interlock_evals.chaos.processes import (
    ORIGIN,
    WITHIN_S,
    House,
    fork,
    propose_and_work,
    propose_only,
    reach_for_it,
    work_on,
)
from interlock_evals.chaos.scenario import Kill, Scenario, race_of, scenario_of
from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.ledger import rows
from interlock_guardrails.metadata import metadata

EXECUTORS, PROCESSES = 64, 8
HANGS = -1
AT_MOST = 2  # runs for each kill that is wanted: some end before the point is reached


class Child:
    """A forked process, and the pipes by which it is told to finish and says that it is ready."""

    def __init__(self, work: Callable[[int, int], None]) -> None:
        self._was_ready = False
        self.ready, says = os.pipe()
        go, self._go = os.pipe()

        def alone() -> None:
            os.close(self._go)  # so that it ends where the parent is gone
            work(says, go)

        self.pid = fork(alone)
        os.close(says)
        os.close(go)

    def finish(self) -> None:
        """Let it end once all is settled."""
        with suppress(BrokenPipeError):
            os.write(self._go, b".")

    def wait_ready(self) -> None:
        """Return once it says so, or has ended."""
        if not self._was_ready:
            _wait_readable(self.ready, WITHIN_S)
            os.read(self.ready, 1)
            self._was_ready = True

    def kill_after(self, delay_s: float) -> None:
        """Kill it then, unless it ends before."""
        if not _wait_readable(self.ready, delay_s):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """How it ended, as waitpid says; call it once it was ready. One that hangs is killed."""
        hangs = not _wait_readable(self.ready, 2 * WITHIN_S)
        if hangs:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.ready)
        os.close(self._go)
        return HANGS if hangs else status


class Ground:
    """An empty store and an empty plant for each run in turn."""

    def __init__(self, url: URL | str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._first: House | None = None
        engine = create_store_engine(url)
        create_tables(engine)
        engine.dispose()

    def house(self, scenario: Scenario) -> House:
        """A house for this run; what the run before left is gone."""
        self.clear()
        acts = self._folder / "acts.jsonl"
        acts.unlink(missing_ok=True)
        house = House.build(self.url, acts, scenario.mishaps, self._first)
        self._first = self._first or house
        return house

    def clear(self) -> None:
        """Leave nothing in the store but the beginning of a log."""
        engine = create_store_engine(self.url)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
                connection.execute(text(f"TRUNCATE {names}"))
            else:
                for table in reversed(metadata.sorted_tables):
                    connection.execute(table.delete())
        rows.begin(engine, ORIGIN)
        engine.dispose()

    def look(self, house: House) -> Found:
        """What is found after a run."""
        engine = create_store_engine(self.url)
        try:
            return look(house, engine)
        finally:
            engine.dispose()


@contextmanager
def ground_of(name: str) -> Iterator[Ground]:
    """Ground on this kind of store, with a server of its own where it needs one.

    Raises:
        RuntimeError: no server could be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        if name == "sqlite":
            yield Ground(f"sqlite:///{folder / 'store.db'}", folder)
        else:
            with Postgres() as server:
                yield Ground(server.url(server.create()), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_one(ground: Ground, scenario: Scenario) -> Found:
    """One run to its end, and what was found."""
    house = ground.house(scenario)
    killed: list[str] = []
    first = Child(lambda says, _: propose_and_work(house, scenario, scenario.kills[0], says))
    kills: list[Kill | None] = [*scenario.kills, None]
    first.wait_ready()
    waiting = _after(house, kills[1]) if scenario.standby else None
    codes = [_end(first, kills[0], killed)]
    for kill in kills[1:]:
        child = waiting or _after(house, kill)
        waiting = None
        child.finish()
        codes.append(_end(child, kill, killed))
    found = _found(ground, house, scenario, codes, kills=len(killed))
    found.points.update(killed)
    return found


def race(ground: Ground, scenario: Scenario) -> Found:
    """Many executors in several processes reach for one approved change; then it is finished."""
    house = ground.house(scenario)
    codes = [_end(Child(lambda says, _: propose_only(house, scenario, says)), None, [])]
    each = EXECUTORS // PROCESSES
    racers = [Child(lambda says, go: reach_for_it(house, each, says, go)) for _ in range(PROCESSES)]
    for racer in racers:
        racer.wait_ready()
    for racer in racers:
        racer.finish()
    last = _after(house, None)
    last.finish()
    codes += [racer.end() for racer in racers]
    codes.append(_end(last, None, []))
    return _found(ground, house, scenario, codes, races=1)


def run_many(
    name: str,
    *,
    seed: int,
    kills: int,
    races: int = 0,
    progress: Callable[[Found], None] = lambda _: None,
) -> Found:
    """Runs on one kind of store until so many processes were killed, and that many races.

    Raises:
        RuntimeError: no server could be started.
    """
    found = Found()
    with ground_of(name) as ground:
        for number in range(AT_MOST * kills):
            if found.kills >= kills:
                break
            found.add(run_one(ground, scenario_of(seed, number)))
            progress(found)
        for number in range(races):
            found.add(race(ground, race_of(seed, number)))
            progress(found)
    return found


def _found(
    ground: Ground, house: House, scenario: Scenario, codes: list[int], **counts: int
) -> Found:
    found = ground.look(house)
    bad = [code for code in codes if code != 0]
    found.note("unended", len(bad), f"processes ended with {bad}")
    for key, count in counts.items():
        setattr(found, key, count)
    found.wrong = [f"run {scenario.seed}/{scenario.number}: {wrong}" for wrong in found.wrong]
    return found


def _after(house: House, kill: Kill | None) -> Child:
    return Child(lambda says, go: work_on(house, kill, says, go))


def _end(child: Child, kill: Kill | None, killed: list[str]) -> int:
    """Wait for its end; 0 where it ended well, or was killed where that was wanted."""
    child.wait_ready()
    if kill is not None and kill.point == "moment":
        child.kill_after(kill.after_ms / 1000)
    status = child.end()
    if kill is not None and status == signal.SIGKILL:
        killed.append(kill.point)
        return 0
    return status


def _wait_readable(file: int, within_s: float) -> bool:
    """Whether there is something to read, an end too, before the time is over."""
    readable, _, _ = select.select([file], [], [], within_s)
    return bool(readable)
