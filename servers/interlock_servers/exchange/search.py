"""Finding points: by what they belong to, and by what they are and how they stand."""

from bisect import bisect_right
from itertools import islice

from interlock_servers.exchange.catalogue import Catalogue
from interlock_servers.exchange.columns import Wanted
from interlock_servers.exchange.points import Point
from interlock_servers.exchange.store import PointStore


def named(
    catalogue: Catalogue, object_id: str | None, rack_location_id: str | None
) -> tuple[str, ...]:
    """The keys of the points of this object and this rack, in order; one of them may be None.

    The points that say they are part of an object are its points too.
    """
    own, parts = catalogue.by_object, catalogue.associated
    of_object = {*own.get(object_id or "", ()), *parts.get(object_id or "", ())}
    of_rack = catalogue.by_rack.get(rack_location_id or "", ())
    if object_id is None:
        return of_rack
    if rack_location_id is not None:
        of_object.intersection_update(of_rack)
    return tuple(sorted(of_object))


def search(
    store: PointStore,
    wanted: Wanted,
    object_id: str | None,
    rack_location_id: str | None,
    cursor: str | None,
    limit: int,
) -> list[Point]:
    """Up to `limit` + 1 points beyond the cursor, in the order of their keys."""
    if object_id is None and rack_location_id is None:
        return store.find(wanted, cursor, limit + 1)
    keys = named(store.catalogue(), object_id, rack_location_id)
    start = 0 if cursor is None else bisect_right(keys, cursor)
    return list(islice(filter(wanted.takes, store.each(keys[start:])), limit + 1))


def belongs_to(store: PointStore, name: str) -> str:
    """The thing that a point's key belongs to; any other name as it is."""
    point = store.point(name)
    if point is None or point.metadata is None:
        return name
    said = point.metadata
    return said.associate_id or said.object_id or said.rack_location_id or name
