"""Whether the parts of a site can stand together; every refusal names the part and the reason."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from interlock_plant.parts import SITE_METER, Cdu, Feed, Node, Pdu, Rack, Storage, Ups
from interlock_tools.errors import InvalidRequestError


class Parts(NamedTuple):
    """Everything that a site is made of."""

    feeds: tuple[Feed, ...]
    ups: tuple[Ups, ...]
    pdus: tuple[Pdu, ...]
    cdus: tuple[Cdu, ...]
    racks: tuple[Rack, ...]
    nodes: tuple[Node, ...]
    storage: Storage | None


def check_parts(name: str, parts: Parts) -> None:
    """Check one site.

    Raises:
        InvalidRequestError: it cannot stand; the text names the first part that is wrong.
    """
    ratings_w = _ratings_w(parts)
    stored = [] if parts.storage is None else [parts.storage.storage_id]
    _check_ids([SITE_METER, *stored, *(part for part, _ in ratings_w)])
    _check_tree(parts)
    for part, rating_w in ratings_w:
        if not (math.isfinite(rating_w) and rating_w > 0):
            raise InvalidRequestError(f"{part}: rating_w must be a positive number")
    if not parts.nodes:
        raise InvalidRequestError(f"{name}: a site needs at least one node")
    _check_details(parts)
    _check_circles(parts.pdus)


def _ratings_w(parts: Parts) -> list[tuple[str, float]]:
    return [
        *((feed.feed_id, feed.rating_w) for feed in parts.feeds),
        *((ups.ups_id, ups.rating_w) for ups in parts.ups),
        *((pdu.pdu_id, pdu.rating_w) for pdu in parts.pdus),
        *((cdu.cdu_id, cdu.rating_w) for cdu in parts.cdus),
        *((rack.rack_id, rack.rating_w) for rack in parts.racks),
        *((node.node_id, node.rating_w) for node in parts.nodes),
    ]


def _check_tree(parts: Parts) -> None:
    feeds = {feed.feed_id for feed in parts.feeds}
    pdus = {pdu.pdu_id: pdu for pdu in parts.pdus}
    cdus = {cdu.cdu_id for cdu in parts.cdus}
    racks = {rack.rack_id for rack in parts.racks}
    _check_parents([(p.pdu_id, p.feed_id) for p in parts.pdus], "feed", feeds)
    _check_parents([(p.pdu_id, p.under) for p in parts.pdus], "PDU", pdus)
    _check_parents([(u.ups_id, u.feed_id) for u in parts.ups], "feed", feeds)
    _check_parents([(c.cdu_id, c.pdu_id) for c in parts.cdus], "PDU", pdus)
    _check_parents([(r.rack_id, r.pdu_id) for r in parts.racks], "PDU", pdus)
    _check_parents([(r.rack_id, r.pdu_b_id) for r in parts.racks], "PDU", pdus)
    _check_parents([(r.rack_id, r.cdu_id) for r in parts.racks], "CDU", cdus)
    _check_parents([(n.node_id, n.rack_id) for n in parts.nodes], "rack", racks)
    for pdu in parts.pdus:
        if pdu.under is not None and pdus[pdu.under].feed_id != pdu.feed_id:
            raise InvalidRequestError(
                f"{pdu.pdu_id}: it is on feed {pdu.feed_id!r}, but {pdu.under} above it is on"
                f" {pdus[pdu.under].feed_id!r}"
            )


def _check_details(parts: Parts) -> None:
    if parts.storage is not None:
        stored = parts.storage
        for key, value in (("energy_j", stored.energy_j), ("power_w", stored.power_w)):
            if not (math.isfinite(value) and value > 0):
                raise InvalidRequestError(f"{stored.storage_id}: {key} must be a positive number")
    behind: dict[str, str] = {}
    for ups in parts.ups:
        if not (math.isfinite(ups.ride_s) and ups.ride_s >= 0):
            raise InvalidRequestError(f"{ups.ups_id}: ride_s must be a number of 0 or more")
        if ups.feed_id in behind:
            raise InvalidRequestError(
                f"{ups.ups_id}: {behind[ups.feed_id]} is behind {ups.feed_id} already"
            )
        behind[ups.feed_id] = ups.ups_id
    for cdu in parts.cdus:
        if cdu.pumps not in (1, 2):
            raise InvalidRequestError(f"{cdu.cdu_id}: pumps must be 1 or 2, not {cdu.pumps}")
    for rack in parts.racks:
        if rack.pdu_b_id == rack.pdu_id:
            raise InvalidRequestError(f"{rack.rack_id}: both of its PDUs are {rack.pdu_id}")
        if not 0.0 < rack.a_share < 1.0:
            raise InvalidRequestError(f"{rack.rack_id}: a_share must be between 0 and 1")
    for node in parts.nodes:
        if node.gpu_count < 1:
            raise InvalidRequestError(f"{node.node_id}: gpu_count must be at least 1")


def _check_circles(pdus: Sequence[Pdu]) -> None:
    under = {pdu.pdu_id: pdu.under for pdu in pdus}
    good: set[str] = set()
    for pdu in pdus:
        path: list[str] = []
        name: str | None = pdu.pdu_id
        while name is not None and name not in good:
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                raise InvalidRequestError(f"{name} stands in a circle: {circle}")
            path.append(name)
            name = under[name]
        good.update(path)


def _check_ids(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise InvalidRequestError("an id is empty")
        if name in seen:
            raise InvalidRequestError(f"id {name!r} is used twice")
        seen.add(name)


def _check_parents(
    hangs: Iterable[tuple[str, str | None]], kind: str, known: Iterable[str]
) -> None:
    names = set(known)
    for child, parent in hangs:
        if parent is not None and parent not in names:
            raise InvalidRequestError(f"{child} is an orphan: there is no {kind} {parent!r}")
