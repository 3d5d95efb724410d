"""A site is described once, and a description that cannot stand is refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from interlock_plant import Cdu, Node, Pdu, Rack, SiteSpec, hall_site, lab_site
from interlock_tools.errors import InvalidRequestError

LAB = lab_site()


def test_the_lab_has_512_gpus_in_8_racks_on_two_of_everything() -> None:
    """The demo, the tests and the evals all speak of this one site."""
    assert LAB.gpu_count == 512
    assert [len(part) for part in (LAB.nodes, LAB.racks, LAB.pdus, LAB.feeds, LAB.cdus)] == [
        64,
        8,
        2,
        2,
        2,
    ]
    assert (LAB.feed_ids[0], LAB.pdu_ids[0], LAB.rack_ids[0]) == ("feed-a", "pdu-1", "rack-01")
    assert (LAB.node_ids[0], LAB.cdu_ids[0]) == ("node-001", "cdu-1")


def test_index_arrays_lead_from_a_gpu_to_its_feed_and_cdu() -> None:
    """Sums over the tree are array operations, so the tree must be arrays that agree with it."""
    node = LAB.node_of_gpu[-1]
    rack = LAB.rack_of_node[node]
    assert LAB.node_ids[node] == "node-064"
    assert LAB.rack_ids[rack] == "rack-08"
    assert LAB.feed_ids[LAB.feed_of_pdu[LAB.pdu_of_rack[rack]]] == "feed-b"
    assert LAB.cdu_ids[LAB.cdu_of_rack[rack]] == "cdu-2"
    assert LAB.gpus_of_node("node-064").tolist() == list(range(504, 512))
    assert np.array_equal(LAB.rack_of_gpu, np.repeat(np.arange(8), 64))


def test_a_hall_is_built_for_any_number_of_nodes() -> None:
    """Benches ask for 10,240 GPUs; a part-filled last rack must not break the tree."""
    assert hall_site(1280).gpu_count == 10_240
    assert len(hall_site(1280).racks) == 160
    assert len(hall_site(9).racks) == 2
    with pytest.raises(InvalidRequestError, match="node_count"):
        hall_site(0)


ORPHAN_RACK = Rack("rack-99", "pdu-9", "cdu-1", 1.0)
BROKEN: list[tuple[str, Callable[[], SiteSpec], str]] = [
    (
        "a PDU on no feed",
        lambda: replace(LAB, pdus=(*LAB.pdus, Pdu("pdu-3", "feed-z", 1.0))),
        "pdu-3 is an orphan: there is no feed 'feed-z'",
    ),
    (
        "a rack on no PDU",
        lambda: replace(LAB, racks=(*LAB.racks, ORPHAN_RACK)),
        "rack-99 is an orphan: there is no PDU 'pdu-9'",
    ),
    (
        "a rack on no CDU",
        lambda: replace(LAB, racks=(*LAB.racks, Rack("rack-99", "pdu-1", "cdu-9", 1.0))),
        "there is no CDU 'cdu-9'",
    ),
    (
        "a node in no rack",
        lambda: replace(LAB, nodes=(*LAB.nodes, Node("node-065", "rack-99"))),
        "node-065 is an orphan",
    ),
    ("a rating of zero", lambda: replace(LAB, cdus=(Cdu("cdu-1", 0.0), LAB.cdus[1])), "cdu-1"),
    (
        "a negative rating",
        lambda: replace(LAB, pdus=(replace(LAB.pdus[0], rating_w=-5.0), LAB.pdus[1])),
        "pdu-1: rating_w must be a positive number",
    ),
    (
        "a rating that is no number",
        lambda: replace(LAB, feeds=(replace(LAB.feeds[0], rating_w=float("nan")), LAB.feeds[1])),
        "feed-a: rating_w",
    ),
    (
        "an id used twice",
        lambda: replace(LAB, nodes=(*LAB.nodes, LAB.nodes[0])),
        "id 'node-001' is used twice",
    ),
    (
        "one id for a rack and a CDU",
        lambda: replace(LAB, cdus=(*LAB.cdus, Cdu("rack-01", 1.0))),
        "'rack-01' is used twice",
    ),
    ("an empty id", lambda: replace(LAB, cdus=(*LAB.cdus, Cdu("", 1.0))), "an id is empty"),
    ("no node", lambda: replace(LAB, nodes=()), "at least one node"),
    (
        "a node with no GPU",
        lambda: replace(LAB, nodes=(replace(LAB.nodes[0], gpu_count=0), *LAB.nodes[1:])),
        "node-001: gpu_count",
    ),
]


@pytest.mark.parametrize(
    ("build", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_site_that_cannot_stand_is_refused_by_name(
    build: Callable[[], SiteSpec], message: str
) -> None:
    """The error names the part, so that whoever wrote the description can mend it."""
    with pytest.raises(InvalidRequestError, match=message):
        build()


def test_an_unknown_node_is_refused() -> None:
    """An empty answer would read as a node without GPUs."""
    with pytest.raises(InvalidRequestError, match="node-999"):
        LAB.gpus_of_node("node-999")
