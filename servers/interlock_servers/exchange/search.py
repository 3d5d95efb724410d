"""Finding points: by what they belong to, one by one, and many of them through a sieve."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from heapq import nsmallest

from interlock_servers.exchange.catalogue import Catalogue
from interlock_servers.exchange.columns import Wanted
from interlock_servers.exchange.points import Point
from interlock_servers.exchange.store import PointStore

_BATCH = 100
_MANY = 5000


def named(
    catalogue: Catalogue, object_id: str | None, rack_location_id: str | None
) -> tuple[str, ...]:
    """The keys of the points of this object and this rack, in order; None takes any.

    The points that say they are part of an object are its points too.
    """
    of_rack = catalogue.by_rack.get(rack_location_id or "", ())
    if object_id is None:
        return catalogue.keys if rack_location_id is None else of_rack
    own, parts = catalogue.by_object.get(object_id, ()), catalogue.associated.get(object_id, ())
    of_object = {*own, *parts}
    if rack_location_id is not None:
        of_object.intersection_update(of_rack)
    return tuple(sorted(of_object))


def scan(
    store: PointStore, keys: Sequence[str], wanted: Wanted, cursor: str | None, limit: int
) -> list[Point]:
    """Up to `limit` + 1 points beyond the cursor; the store is locked for a few at a time."""
    found: list[Point] = []
    start = 0 if cursor is None else bisect_right(keys, cursor)
    step = max(limit + 1, _BATCH)
    for first in range(start, len(keys), step):
        batch = keys[first : first + step]
        found += filter(wanted.takes, store.points(batch))
        if len(found) > limit:
            break
        if not wanted.all and len(keys) - first > _MANY:
            return found + _sift(store, keys, wanted, batch[-1], limit - len(found))
    return found[: limit + 1]


def _sift(
    store: PointStore, keys: Sequence[str], wanted: Wanted, last: str, limit: int
) -> list[Point]:
    """The same where what is wanted is rare: only what stays in the sieve is looked at."""
    stays = store.sieve(wanted)
    found: list[Point] = []
    while len(found) <= limit:
        batch = nsmallest(limit + 1, (key for key in stays if key > last))
        if not batch:
            break
        found += filter(wanted.takes, store.points(key for key in batch if _among(keys, key)))
        last = batch[-1]
    return found[: limit + 1]


def _among(ordered: Sequence[str], key: str) -> bool:
    at = bisect_left(ordered, key)
    return at < len(ordered) and ordered[at] == key


def belongs_to(store: PointStore, name: str) -> str:
    """The thing that a point's key belongs to; any other name as it is."""
    point = store.point(name)
    if point is None or point.metadata is None:
        return name
    said = point.metadata
    return said.associate_id or said.object_id or said.rack_location_id or name
