"""Finding points: by what they belong to, then one by one."""

from collections.abc import Callable, Iterable
from itertools import islice

from interlock_servers.exchange.catalogue import Catalogue
from interlock_servers.exchange.points import Point
from interlock_servers.exchange.store import PointStore

_BATCH = 1000


def named(
    catalogue: Catalogue, object_id: str | None, rack_location_id: str | None
) -> tuple[str, ...]:
    """The keys of the points of this object and this rack, in order; None takes any.

    The points that say they are part of an object are its points too.
    """
    keys = catalogue.keys
    if object_id is not None:
        own, parts = catalogue.by_object.get(object_id, ()), catalogue.associated.get(object_id, ())
        keys = tuple(sorted({*own, *parts}))
    if rack_location_id is not None:
        wanted = set(keys)
        keys = tuple(k for k in catalogue.by_rack.get(rack_location_id, ()) if k in wanted)
    return keys


def scan(
    store: PointStore, keys: Iterable[str], wanted: Callable[[Point], bool], limit: int
) -> list[Point]:
    """Up to `limit` + 1 points; the store is locked for a portion of them at a time."""
    found: list[Point] = []
    rest = iter(keys)
    while batch := list(islice(rest, _BATCH)):
        found += filter(wanted, store.points(batch))
        if len(found) > limit:
            break
    return found[: limit + 1]


def belongs_to(store: PointStore, name: str) -> str:
    """The thing that a point's key belongs to; any other name as it is."""
    point = store.point(name)
    if point is None or point.metadata is None:
        return name
    said = point.metadata
    return said.associate_id or said.object_id or said.rack_location_id or name
