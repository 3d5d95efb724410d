"""Which points exist and how the things that they belong to hang together, by metadata alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from interlock_servers.exchange.grammar import ELECTRICAL, PARTS, PLANT_ROOM
from interlock_servers.exchange.models import PointMetadata, Topic

HEARTBEATS = frozenset({"HeartbeatTimestampBms", "HeartbeatTimestampIntegration"})
ECHOES = frozenset({"HeartbeatEchoBms", "HeartbeatEchoIntegration"})
_MEDIUM = {
    **dict.fromkeys(ELECTRICAL, "power"),
    **dict.fromkeys(PLANT_ROOM | PARTS, "fluid"),
}


@dataclass(frozen=True)
class Catalogue:
    """Which points exist and how they hang together, by what their metadata says.

    An edge of `serves` is from what serves to what is served. `associated` leads from a parent to
    the points that say they are part of it. `media` is what an object passes on, power or fluid.
    `conflicts` are ids that two things claim.
    """

    keys: tuple[str, ...]
    by_object: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_rack: dict[str, tuple[str, ...]] = field(default_factory=dict)
    associated: dict[str, tuple[str, ...]] = field(default_factory=dict)
    serves: dict[str, tuple[str, ...]] = field(default_factory=dict)
    served_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    media: dict[str, str] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    heartbeats: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()


def catalogue_of(
    described: Iterable[tuple[str, Topic, PointMetadata | None]],
) -> Catalogue:
    """The catalogue of these points, by key, topic and metadata."""
    ordered = sorted(described, key=lambda one: one[0])
    by_object: dict[str, list[str]] = {}
    by_rack: dict[str, list[str]] = {}
    associated: dict[str, list[str]] = {}
    serves: dict[str, dict[str, None]] = {}
    served_by: dict[str, dict[str, None]] = {}
    claims: dict[str, set[tuple[str, str | None]]] = {}
    media: dict[str, str] = {}
    for key, topic, metadata in ordered:
        if metadata is None:
            continue
        if metadata.object_id and not metadata.associate_id:
            name = metadata.object_id
            by_object.setdefault(name, []).append(key)
            if topic.point_type not in HEARTBEATS | ECHOES:
                claims.setdefault(name, set()).add(
                    (f"{topic.prefix}{topic.object_type}", metadata.object_name)
                )
            if medium := _MEDIUM.get(topic.object_type):
                media.setdefault(name, medium)
            for served in metadata.serves_id:
                serves.setdefault(name, {})[served] = None
                served_by.setdefault(served, {})[name] = None
        if metadata.associate_id:
            associated.setdefault(metadata.associate_id, []).append(key)
        if metadata.rack_location_id:
            by_rack.setdefault(metadata.rack_location_id, []).append(key)
            rack = (f"{topic.prefix}Rack", metadata.rack_location_name)
            claims.setdefault(metadata.rack_location_id, set()).add(rack)
    return Catalogue(
        keys=tuple(key for key, _, _ in ordered),
        by_object=_frozen(by_object),
        by_rack=_frozen(by_rack),
        associated=_frozen(associated),
        serves=_frozen(serves),
        served_by=_frozen(served_by),
        media=media,
        conflicts={
            name: " and ".join(f"{kind} {said!r}" for kind, said in sorted(claimants))
            for name, of in claims.items()
            if len(claimants := _claimants(of)) > 1
        },
        heartbeats=tuple(k for k, topic, _ in ordered if topic.point_type in HEARTBEATS),
        leaks=tuple(k for k, topic, _ in ordered if topic.point_type == "LeakDetect"),
    )


def _claimants(of: set[tuple[str, str | None]]) -> set[tuple[str, str]]:
    """Who claims one id; a point that names nobody is of whoever else is of its kind."""
    named = {(kind, said) for kind, said in of if said is not None}
    kinds = {kind for kind, _ in named}
    return named | {(kind, "") for kind, said in of if said is None and kind not in kinds}


def _frozen(lists: dict[str, list[str]] | dict[str, dict[str, None]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(keys) for name, keys in lists.items()}
