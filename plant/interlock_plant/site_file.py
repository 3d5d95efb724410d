"""Site files: TOML that says what stands where, with counts and patterns instead of long lists.

Reads text, never a file; the sites that the house ships are read with `shipped_site`. A pattern
such as `pdu-{n/8}` is filled with the number of the part that is being made, from 1; `{n:03}` pads
it, `{n/8}` counts in eights, `{m}` counts nodes over the whole site.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final, TypeVar

from interlock_plant.parameters import (
    A100_HOST,
    A100_SXM,
    B300,
    H100_HOST,
    H100_IMMERSION_HOST,
    H100_SXM,
    H200_HOST,
    H200_SXM,
    NODE_NAMEPLATE_W,
    UPS_RIDE_S,
)
from interlock_plant.site import Cdu, Feed, Node, Pdu, Rack, SiteSpec, Storage, Ups
from interlock_tools.errors import InvalidRequestError

SHIPPED: Final = ("lab", "hall", "site100mw")
GPUS: Final = {gpu.model: gpu for gpu in (H100_SXM, H200_SXM, A100_SXM, B300)}
HOSTS: Final = {
    "h100-air": H100_HOST,
    "h200-air": H200_HOST,
    "h100-immersion": H100_IMMERSION_HOST,
    "a100-air": A100_HOST,
}
MOST_PARTS: Final = 1_000_000  # of one kind: more is a slip of the pen
PATTERN: Final = re.compile(r"\{(n|m)(?:/([1-9][0-9]*))?(?::(0[1-9][0-9]?))?\}")
KINDS: Final = ("feeds", "ups", "pdus", "cdus", "racks")
Found = TypeVar("Found")
TOP: Final = {"schema", "name", "gpu", "host", "chassis_spread", "storage", *KINDS}


def shipped_site(name: str) -> SiteSpec:
    """One of the sites of the house: `lab`, `hall` or `site100mw`.

    Raises:
        InvalidRequestError: there is no such site.
    """
    if name not in SHIPPED:
        raise InvalidRequestError(f"there is no site {name!r}; there are {', '.join(SHIPPED)}")
    file = resources.files("interlock_plant") / "sites" / f"{name}.toml"
    return parse_site(file.read_text("utf-8"))


def parse_site(text: str) -> SiteSpec:
    """The site that this TOML describes.

    Raises:
        InvalidRequestError: it is not TOML, has a key that means nothing or a value of the wrong
            kind, or describes a site that cannot stand; the text names the part.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError(f"the site file is not TOML: {error}") from None
    _only(raw, TOP, "the site file")
    if raw.get("schema") != 1:
        raise InvalidRequestError("schema must be 1")
    name = _text(raw, "name", "the site file")
    tables = {kind: _tables(raw, kind) for kind in KINDS}
    racks, nodes = _racks(tables["racks"])
    return SiteSpec(
        name=name,
        feeds=tuple(_feeds(tables["feeds"])),
        pdus=tuple(_pdus(tables["pdus"])),
        cdus=tuple(_cdus(tables["cdus"])),
        racks=racks,
        nodes=nodes,
        gpu=_choice(raw, "gpu", GPUS, H100_SXM.model),
        host=_choice(raw, "host", HOSTS, "h100-air"),
        ups=tuple(_ups(tables["ups"])),
        chassis_spread=_number(raw, "chassis_spread", "the site file", 0.0),
        storage=_storage(raw),
    )


def _storage(raw: Mapping[str, Any]) -> Storage | None:
    table = raw.get("storage")
    if table is None:
        return None
    if not isinstance(table, dict):
        raise InvalidRequestError("storage must be a table, [storage]")
    where = _where(table, {"id", "energy_j", "power_w"})
    energy_j, power_w = _number(table, "energy_j", where), _number(table, "power_w", where)
    return Storage(table["id"], energy_j, power_w)


def _feeds(tables: Sequence[Mapping[str, Any]]) -> list[Feed]:
    out = []
    for table in tables:
        where = _where(table, {"id", "count", "rating_w"})
        rating_w = _number(table, "rating_w", where)
        out += [Feed(_fill(table["id"], n, where), rating_w) for n in _numbers(table, where)]
    return out


def _ups(tables: Sequence[Mapping[str, Any]]) -> list[Ups]:
    out = []
    for table in tables:
        where = _where(table, {"id", "count", "feed", "rating_w", "ride_s"})
        feed, rating_w = _text(table, "feed", where), _number(table, "rating_w", where)
        ride_s = _number(table, "ride_s", where, UPS_RIDE_S)
        out += [
            Ups(_fill(table["id"], n, where), _fill(feed, n, where), rating_w, ride_s)
            for n in _numbers(table, where)
        ]
    return out


def _pdus(tables: Sequence[Mapping[str, Any]]) -> list[Pdu]:
    out = []
    for table in tables:
        where = _where(table, {"id", "count", "feed", "rating_w", "under"})
        feed, rating_w = _text(table, "feed", where), _number(table, "rating_w", where)
        under = _optional(table, "under", where)
        out += [
            Pdu(
                _fill(table["id"], n, where),
                _fill(feed, n, where),
                rating_w,
                under and _fill(under, n, where),
            )
            for n in _numbers(table, where)
        ]
    return out


def _cdus(tables: Sequence[Mapping[str, Any]]) -> list[Cdu]:
    out = []
    for table in tables:
        where = _where(table, {"id", "count", "rating_w", "pumps", "pdu"})
        rating_w = _number(table, "rating_w", where)
        pumps, pdu = _whole(table, "pumps", where, 2), _optional(table, "pdu", where)
        out += [
            Cdu(_fill(table["id"], n, where), rating_w, pumps, pdu and _fill(pdu, n, where))
            for n in _numbers(table, where)
        ]
    return out


RACK_KEYS: Final = {
    *("id", "count", "pdu", "pdu_b", "a_share", "cdu", "rating_w"),
    *("nodes", "node_id", "node_rating_w", "gpus_per_node", "spare_nodes"),
}


def _racks(tables: Sequence[Mapping[str, Any]]) -> tuple[tuple[Rack, ...], tuple[Node, ...]]:
    racks: list[Rack] = []
    nodes: list[Node] = []
    for table in tables:
        where = _where(table, RACK_KEYS)
        pdu, cdu = _text(table, "pdu", where), _text(table, "cdu", where)
        pdu_b, rating_w = _optional(table, "pdu_b", where), _number(table, "rating_w", where)
        a_share = _number(table, "a_share", where, 0.5)
        count, spares = _whole(table, "nodes", where), _whole(table, "spare_nodes", where, 0)
        node_id = _text(table, "node_id", where)
        gpus = _whole(table, "gpus_per_node", where, 8)
        node_w = _number(table, "node_rating_w", where, NODE_NAMEPLATE_W)
        if not 0 <= spares <= count <= MOST_PARTS:
            raise InvalidRequestError(f"{where}: spare_nodes must be in 0..nodes")
        for n in _numbers(table, where):
            rack_id = _fill(table["id"], n, where)
            racks.append(
                Rack(
                    rack_id,
                    _fill(pdu, n, where),
                    _fill(cdu, n, where),
                    rating_w,
                    pdu_b and _fill(pdu_b, n, where),
                    a_share,
                )
            )
            for number in range(count):
                name = _fill(node_id, n, where, len(nodes) + 1)
                nodes.append(Node(name, rack_id, gpus, node_w, number >= count - spares))
                if len(nodes) > MOST_PARTS:
                    raise InvalidRequestError(f"{where}: more than {MOST_PARTS} nodes")
    return tuple(racks), tuple(nodes)


def _fill(pattern: str, n: int, where: str, m: int | None = None) -> str:
    def number(match: re.Match[str]) -> str:
        letter, per, width = match.groups()
        value = n if letter == "n" else m
        if value is None:
            raise InvalidRequestError(f"{where}: {{m}} counts nodes and stands in node_id only")
        value = (value - 1) // int(per) + 1 if per else value
        return f"{value:{width}d}" if width else str(value)

    filled = PATTERN.sub(number, pattern)
    if "{" in filled or "}" in filled:
        raise InvalidRequestError(f"{where}: {pattern!r} is not a pattern such as 'pdu-{{n/8}}'")
    return filled


def _where(table: Mapping[str, Any], keys: set[str]) -> str:
    """Name of a table, for errors; its keys are checked on the way."""
    where = f"part {_text(table, 'id', 'a part')!r}"
    _only(table, keys, where)
    return where


def _numbers(table: Mapping[str, Any], where: str) -> range:
    count = _whole(table, "count", where, 1)
    if not 1 <= count <= MOST_PARTS:
        raise InvalidRequestError(f"{where}: count must be in 1..{MOST_PARTS}, not {count}")
    return range(1, count + 1)


def _only(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(set(table) - keys)
    if unknown:
        raise InvalidRequestError(f"{where}: there is no key {unknown[0]!r}")


def _tables(raw: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    tables = raw.get(kind, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidRequestError(f"{kind} must be tables, [[{kind}]]")
    return tables


def _choice(raw: Mapping[str, Any], key: str, known: Mapping[str, Found], default: str) -> Found:
    name = raw.get(key, default)
    if name not in known:
        raise InvalidRequestError(f"{key} must be one of {', '.join(known)}, not {name!r}")
    return known[name]


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"{where}: {key} must be text that is not empty")
    return value


def _optional(table: Mapping[str, Any], key: str, where: str) -> str | None:
    return _text(table, key, where) if key in table else None


def _number(table: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{where}: {key} must be a number")
    return float(value)


def _whole(table: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(f"{where}: {key} must be a whole number")
    return value
