"""What hangs on what: walks along `servesId`, and what is lost when one thing fails.

A thing is lost when nothing that is not itself lost passes it power, or nothing coolant. What two
feeds serve is not lost with one of them.
"""

from collections import deque
from typing import Literal, NamedTuple

from interlock_servers.exchange.catalogue import Catalogue
from interlock_servers.plant_text import plant_text

MAX_NODES = 5000
MAX_DISTANCE = 32
MAX_WARNINGS = 5


class Reached(NamedTuple):
    """What a walk reached; an edge is (what serves, what is served)."""

    distance: dict[str, int]
    edges: tuple[tuple[str, str], ...]
    truncated: bool
    lost: frozenset[str] | None
    warnings: tuple[str, ...]


def walk(
    catalogue: Catalogue, start: str, direction: Literal["down", "up"], limit: int = MAX_NODES
) -> Reached:
    """Everything along the way, nearest first; it ends even where metadata leads in circles."""
    ways = catalogue.serves if direction == "down" else catalogue.served_by
    distance = {start: 0}
    edges: dict[tuple[str, str], None] = {}
    waiting, truncated = deque([start]), False
    while waiting:
        here = waiting.popleft()
        for there in ways.get(here, ()):
            if there not in distance:
                if len(distance) >= limit or distance[here] >= MAX_DISTANCE:
                    truncated = True
                    continue
                distance[there] = distance[here] + 1
                waiting.append(there)
            edges[(here, there) if direction == "down" else (there, here)] = None
    lost = None
    if direction == "down":
        lost = frozenset(distance) - _alive(catalogue, without=start)
    return Reached(
        distance, tuple(edges), truncated, lost, _warnings(catalogue, distance, list(edges))
    )


def _alive(catalogue: Catalogue, without: str) -> set[str]:
    """What still has all that it needs, counted from the sources, which nothing serves."""
    medium = {name: catalogue.media.get(name, "power") for name in catalogue.serves}
    needs = {
        served: {medium[server] for server in servers}
        for served, servers in catalogue.served_by.items()
    }
    names = catalogue.serves.keys() | catalogue.served_by.keys()
    waiting = deque(name for name in names if name not in needs and name != without)
    alive: set[str] = set()
    while waiting:
        here = waiting.popleft()
        alive.add(here)
        for there in catalogue.serves.get(here, ()):
            wanted = needs[there]
            if medium[here] in wanted:
                wanted.discard(medium[here])
                if not wanted and there != without:
                    waiting.append(there)
    return alive


def _warnings(
    catalogue: Catalogue, distance: dict[str, int], edges: list[tuple[str, str]]
) -> tuple[str, ...]:
    """What is wrong with what metadata says of these things."""
    found = [
        f"{plant_text(name, 80)} is claimed by {plant_text(catalogue.conflicts[name])}"
        for name in distance
        if name in catalogue.conflicts
    ]
    incoming = dict.fromkeys(distance, 0)
    for _, served in edges:
        incoming[served] += 1
    after: dict[str, list[str]] = {}
    for server, served in edges:
        after.setdefault(server, []).append(served)
    free = deque(name for name, servers in incoming.items() if not servers)
    while free:
        for served in after.get(free.popleft(), ()):
            incoming[served] -= 1
            if not incoming[served]:
                free.append(served)
    circular = [name for name, servers in incoming.items() if servers]
    if circular:
        names = ", ".join(plant_text(name, 40) for name in circular[:MAX_WARNINGS])
        found.insert(0, f"servesId leads in a circle at or before {names}")
    return tuple(found[:MAX_WARNINGS])
