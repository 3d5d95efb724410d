"""The topics of the bus taken apart: BMS, Flex and NICo, with or without a cluster's prefix."""

import re
from enum import StrEnum
from typing import NamedTuple

from interlock_servers.exchange.grammar import OBJECT_TYPES
from interlock_servers.exchange.reasons import (
    TOLERANT,
    Compatibility,
    Reason,
    RejectedError,
)

BMS = "PUB"  # the publisher segment of the BMS; every other one is an integration's id
MAX_TOPIC_CHARS = 1024


class TopicKind(StrEnum):
    """What a message on a topic is."""

    VALUE = "Value"
    METADATA = "Metadata"


class Topic(NamedTuple):
    """A topic taken apart. `key` is the point's identity, the same in its values and metadata."""

    cpc: str | None
    publisher: str
    kind: TopicKind
    object_type: str
    point_type: str
    key: str
    older: bool = False  # of the grammar before bms.yaml: what the point is, metadata alone says

    @property
    def prefix(self) -> str:
        """`cpc/{id}/` in the common services cluster, otherwise empty."""
        return _prefix(self.cpc)

    @property
    def sender(self) -> str:
        """What stands before `/Value/` and `/Metadata/`."""
        return f"{self.prefix}BMS/v1/{self.publisher}"

    @property
    def metadata_topic(self) -> str:
        """Where the metadata of the point comes."""
        name = self.key.removeprefix(self.prefix)
        if self.older:
            return f"{self.prefix}BMS/v1/{name}/Metadata"
        return f"{self.prefix}BMS/v1/{BMS}/Metadata/{name}"


class OtherTopic(NamedTuple):
    """A topic that carries no point: of NICo or of DSX Flex. `subject` is the machine or agent."""

    cpc: str | None
    space: str
    subject: str
    older: bool = False


_TOPIC = re.compile(
    r"(?:cpc/(?P<cpc>[^/]+)/)?BMS/v1/(?P<publisher>[^/]+)/(?P<kind>Value|Metadata)"
    r"/(?P<tail>(?P<object_type>[^/]+)/(?P<point_type>[^/]+)(?:/[^/]+)+)"
)
_OLDER = re.compile(
    r"(?:cpc/(?P<cpc>[^/]+)/)?BMS/v1/(?P<path>[^/]+(?:/[^/]+)*)/(?P<kind>Value|Metadata)"
)
_NICO = re.compile(r"(?:cpc/(?P<cpc>[^/]+)/)?NICO/v1/machine/(?P<machine>[^/]+)/state")
_GRID = re.compile(
    r"(?:cpc/(?P<cpc>[^/]+)/)?grid/v1/(?:(?P<isv>isv)/(?P<a>[^/]+)/loadtarget/set"
    r"|(?:dsx-flex-agent|(?P<old>poweragent))/(?P<b>[^/]+)/(?:powerstate/status|powerbreach)"
    r"|infra/(?P<c>[^/]+)/powerbreach/enforcement)"
)
_BMS_SPACE = re.compile(r"(?:cpc/[^/]+/)?BMS/v1/")
_NEVER_IN_TOPIC = re.compile(r"[+#\x00-\x1f\x7f]")


def parse_topic(topic: str, compatibility: Compatibility = TOLERANT) -> Topic:
    """Take a BMS topic apart, with or without the prefix of a control plane cluster.

    Raises:
        RejectedError: it is of another space, or breaks the grammar.
    """
    if len(topic) > MAX_TOPIC_CHARS:
        raise RejectedError(Reason.TOO_LARGE, f"a topic of {len(topic)} characters")
    found = _TOPIC.fullmatch(topic)
    if found is None or _NEVER_IN_TOPIC.search(topic):
        if compatibility.old_topics and not _NEVER_IN_TOPIC.search(topic):
            older = _OLDER.fullmatch(topic)
            if older is not None:
                said, key = TopicKind(older["kind"]), _prefix(older["cpc"]) + older["path"]
                return Topic(older["cpc"], BMS, said, "", "", key, older=True)
        ours = _BMS_SPACE.match(topic)
        raise RejectedError(Reason.TOPIC_GRAMMAR if ours else Reason.NOT_BMS, "no point topic")
    cpc, publisher, kind, tail, object_type, point_type = found.groups()
    key = _prefix(cpc) + tail
    parsed = Topic(cpc, publisher, TopicKind(kind), object_type, point_type, key)
    if parsed.object_type not in OBJECT_TYPES:
        raise RejectedError(Reason.UNKNOWN_OBJECT_TYPE, repr(parsed.object_type))
    if parsed.kind is TopicKind.METADATA and parsed.publisher != BMS:
        raise RejectedError(Reason.FOREIGN_METADATA, f"only the BMS may, not {parsed.publisher!r}")
    return parsed


def parse_other(topic: str) -> OtherTopic | None:
    """A topic of NICo or of DSX Flex taken apart, with or without prefix; None for any other."""
    if len(topic) > MAX_TOPIC_CHARS or _NEVER_IN_TOPIC.search(topic):
        return None
    if found := _NICO.fullmatch(topic):
        return OtherTopic(found["cpc"], "nico", found["machine"])
    if found := _GRID.fullmatch(topic):
        subject = found["a"] or found["b"] or found["c"]
        return OtherTopic(found["cpc"], "grid", subject, older=bool(found["old"]))
    return None


def _prefix(cpc: str | None) -> str:
    return f"cpc/{cpc}/" if cpc else ""


def matches(topic_filter: str, topic: str) -> bool:
    """Whether an MQTT filter, which must be a valid one, takes a topic."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in {"+", levels[at]}:
            return False
    return len(wanted) == len(levels)
