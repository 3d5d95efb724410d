"""Scenario files: TOML that says what goes wrong, what the grid asks and which load changes.

```toml
[[faults]]
kind = "feed_loss"       # a name of FaultKind
target = "feed-a"
at_s = 120               # after the plant's start
lasts_s = 300            # optional; else until repaired
xid = 79                 # optional

[[grid]]
announced_s = 60         # optional; else at once
begins_s = 180
ends_s = 10980
target_w = 350_000
ramp_w_per_s = 2000      # optional; else a step

[[load]]
job = "label-images"     # its `u` follows these points, straight between them, whatever drove it
points = [[0, 0.3], [39600, 0.3], [43200, 1.0]]
```
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from interlock_plant.faults import Fault, FaultKind, at_moment
from interlock_plant.grid import GridEvent, GridState, announce
from interlock_plant.jobs import Job
from interlock_plant.load import Load, PointsLoad
from interlock_plant.plant import Plant
from interlock_tools.errors import InvalidRequestError

FAULT_KEYS = frozenset({"kind", "target", "at_s", "lasts_s", "xid"})
GRID_KEYS = frozenset({"announced_s", "begins_s", "ends_s", "target_w", "ramp_w_per_s"})
LOAD_KEYS = frozenset({"job", "points"})


@dataclass(frozen=True)
class Scenario:
    """What will happen: faults by their second, grid events by the second they are announced.

    `loads` are the jobs whose load is told: second and `u` of each point.
    """

    faults: tuple[tuple[int, Fault], ...]
    grid: tuple[tuple[int, GridEvent], ...]
    loads: tuple[tuple[str, tuple[tuple[int, float], ...]], ...] = ()

    def prepare(self, plant: Plant) -> None:
        """Hand every fault to a plant at its start; each waits there for its moment.

        Raises:
            InvalidRequestError: a target does not exist, or its moment is past; names it.
        """
        for second, fault in self.faults:
            plant.inject(at_moment(fault, plant.start, second))

    def driving(self, jobs: Sequence[Job], load: Load) -> Load:
        """The load with the jobs that the file tells of put under it; for the plant's making.

        Raises:
            InvalidRequestError: there is no such job; names it.
        """
        return PointsLoad(jobs, dict(self.loads), load) if self.loads else load

    def announce_due(self, plant: Plant, second: int) -> None:
        """Tell the plant of the events that become known in this second."""
        for announced_s, event in self.grid:
            if announced_s == second:
                plant.announce(event)


def parse_scenario(text: str) -> Scenario:
    """The scenario that this TOML describes.

    Raises:
        InvalidRequestError: it is not TOML, or an entry is malformed; says which.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError(f"the scenario is not TOML: {error}") from None
    unknown = sorted(set(raw) - {"faults", "grid", "load"})
    if unknown:
        raise InvalidRequestError(f"the scenario: there is no key {unknown[0]!r}")
    events = tuple(_event(number, entry) for number, entry in _entries(raw, "grid"))
    together = GridState()
    for _, event in events:
        announce(together, event, 0)  # two that overlap are found now, not in the middle of a run
    faults = tuple(_fault(number, entry) for number, entry in _entries(raw, "faults"))
    loads = tuple(_load(number, entry) for number, entry in _entries(raw, "load"))
    return Scenario(faults, events, loads)


def _fault(number: int, entry: Mapping[str, Any]) -> tuple[int, Fault]:
    where = f"fault {number}"
    _only(entry, FAULT_KEYS, where)
    kinds = {kind.value: kind for kind in FaultKind}
    kind, target = entry.get("kind"), entry.get("target")
    if kind not in kinds:
        raise InvalidRequestError(f"{where}: there is no kind {kind!r}")
    if not isinstance(target, str) or not target:
        raise InvalidRequestError(f"{where}: target must be the name of a part")
    lasts_s = _whole(entry, "lasts_s", where) if "lasts_s" in entry else None
    xid = _whole(entry, "xid", where) if "xid" in entry else None
    fault = Fault(kinds[kind], target, lasts_s=lasts_s, xid=xid)
    return _whole(entry, "at_s", where), fault


def _event(number: int, entry: Mapping[str, Any]) -> tuple[int, GridEvent]:
    where = f"grid event {number}"
    _only(entry, GRID_KEYS, where)
    begins_s = _whole(entry, "begins_s", where)
    announced_s = _whole(entry, "announced_s", where) if "announced_s" in entry else 0
    if announced_s > begins_s:
        raise InvalidRequestError(f"{where}: it is announced after it begins")
    event = GridEvent(
        begins_s,
        _whole(entry, "ends_s", where),
        _number(entry, "target_w", where),
        _number(entry, "ramp_w_per_s", where) if "ramp_w_per_s" in entry else inf,
    )
    return announced_s, event


def _load(number: int, entry: Mapping[str, Any]) -> tuple[str, tuple[tuple[int, float], ...]]:
    where = f"load {number}"
    _only(entry, LOAD_KEYS, where)
    job, given = entry.get("job"), entry.get("points")
    if not isinstance(job, str) or not job:
        raise InvalidRequestError(f"{where}: job must be the name of a job")
    if not isinstance(given, list) or not given:
        raise InvalidRequestError(f"{where}: points must be a list of [second, u]")
    points: list[tuple[int, float]] = []
    for point in given:
        if not isinstance(point, list) or len(point) != 2:
            raise InvalidRequestError(f"{where}: a point is [second, u], not {point!r}")
        pair = {"second": point[0], "u": point[1]}
        points.append((_whole(pair, "second", where), _number(pair, "u", where)))
        if not 0.0 <= points[-1][1] <= 1.0:
            raise InvalidRequestError(f"{where}: u must be in [0, 1], not {points[-1][1]}")
    seconds = [second for second, _ in points]
    if sorted(set(seconds)) != seconds:
        raise InvalidRequestError(f"{where}: the seconds of its points must rise")
    return job, tuple(points)


def _entries(raw: Mapping[str, Any], key: str) -> list[tuple[int, dict[str, Any]]]:
    entries = raw.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequestError(f"{key} must be tables, [[{key}]]")
    return list(enumerate(entries, start=1))


def _only(entry: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
    unknown = sorted(set(entry) - keys)
    if unknown:
        raise InvalidRequestError(f"{where}: there is no key {unknown[0]!r}")


def _whole(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequestError(f"{where}: {key} must be a whole number of 0 or more")
    return value


def _number(entry: Mapping[str, Any], key: str, where: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{where}: {key} must be a number")
    return float(value)
