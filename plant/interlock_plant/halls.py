"""Sites that the house uses: the small lab of the demo and tests, and halls of any size."""

from typing import Final

from interlock_plant.site import Cdu, Feed, Node, Pdu, Rack, SiteSpec
from interlock_tools.errors import InvalidRequestError

NODES_PER_RACK: Final = 8
# Assumed ratings. Eight nodes draw about 62 kW in mixed work and 67 kW with every GPU at 700 W.
RACK_RATING_W: Final = 72_000.0
PDU_W_PER_RACK: Final = 66_000.0
FEED_W_PER_RACK: Final = 66_000.0
CDU_W_PER_RACK: Final = RACK_RATING_W


def lab_site() -> SiteSpec:
    """64 eight-GPU H100 nodes in 8 racks, on 2 PDUs, 2 feeds and 2 CDUs: 512 GPUs, about 470 kW."""
    return _build("lab", 64, racks_per_pdu=4, pdus_per_feed=1, racks_per_cdu=4)


def hall_site(node_count: int) -> SiteSpec:
    """`node_count` eight-GPU H100 nodes, 8 a rack, 8 racks a PDU and a CDU, 4 PDUs a feed.

    Raises:
        InvalidRequestError: `node_count` is less than 1.
    """
    if node_count < 1:
        raise InvalidRequestError(f"node_count must be at least 1, not {node_count}")
    return _build("hall", node_count, racks_per_pdu=8, pdus_per_feed=4, racks_per_cdu=8)


def _build(
    name: str, node_count: int, *, racks_per_pdu: int, pdus_per_feed: int, racks_per_cdu: int
) -> SiteSpec:
    rack_count = -(-node_count // NODES_PER_RACK)
    pdu_count = -(-rack_count // racks_per_pdu)
    feed_count = -(-pdu_count // pdus_per_feed)
    cdu_count = -(-rack_count // racks_per_cdu)
    rack_digits, node_digits = max(2, len(str(rack_count))), max(3, len(str(node_count)))
    feeds = [_feed_id(index) for index in range(feed_count)]
    pdus = [f"pdu-{index + 1}" for index in range(pdu_count)]
    cdus = [f"cdu-{index + 1}" for index in range(cdu_count)]
    racks = [f"rack-{index + 1:0{rack_digits}d}" for index in range(rack_count)]
    racks_per_feed = racks_per_pdu * pdus_per_feed
    return SiteSpec(
        name=name,
        feeds=tuple(Feed(feed, FEED_W_PER_RACK * racks_per_feed) for feed in feeds),
        pdus=tuple(
            Pdu(pdu, feeds[i // pdus_per_feed], PDU_W_PER_RACK * racks_per_pdu)
            for i, pdu in enumerate(pdus)
        ),
        cdus=tuple(Cdu(cdu, CDU_W_PER_RACK * racks_per_cdu) for cdu in cdus),
        racks=tuple(
            Rack(rack, pdus[i // racks_per_pdu], cdus[i // racks_per_cdu], RACK_RATING_W)
            for i, rack in enumerate(racks)
        ),
        nodes=tuple(
            Node(f"node-{i + 1:0{node_digits}d}", racks[i // NODES_PER_RACK])
            for i in range(node_count)
        ),
    )


def _feed_id(index: int) -> str:
    """`feed-a` to `feed-z`, then numbers."""
    return f"feed-{chr(ord('a') + index)}" if index < 26 else f"feed-{index + 1}"
