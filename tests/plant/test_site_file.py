"""A site is a short file; one that cannot stand is refused with the name of its part."""

from pathlib import Path

import pytest

from interlock_evals.factory import site_of
from interlock_plant import hall_jobs, jobs_of, lab_jobs, lab_site, parse_site, shipped_site
from interlock_plant.site_file import SHIPPED
from interlock_tools.errors import InvalidRequestError

SMALL = """
schema = 1
name = "small"

[[feeds]]
id = "feed-{n}"
count = 2
rating_w = 100_000

[[ups]]
id = "ups-1"
feed = "feed-1"
rating_w = 100_000

[[pdus]]
id = "pdu-{n}"
count = 2
feed = "feed-{n}"
rating_w = 90_000

[[cdus]]
id = "cdu-1"
rating_w = 80_000
pdu = "pdu-1"

[[racks]]
id = "rack-{n:02}"
count = 4
pdu = "pdu-1"
pdu_b = "pdu-2"
cdu = "cdu-1"
rating_w = 20_000
nodes = 2
node_id = "node-{m:02}"
spare_nodes = 1
"""


@pytest.mark.parametrize(
    ("name", "gpus", "racks", "spares"),
    [("lab", 512, 8, 0), ("hall", 10_240, 160, 16), ("site100mw", 100_000, 1589, 212)],
)
def test_the_shipped_sites_are_of_their_size(name: str, gpus: int, racks: int, spares: int) -> None:
    """Bench, docs and `interlock plant --site` speak of these three."""
    site = shipped_site(name)
    assert (site.name, site.gpu_count, len(site.racks)) == (name, gpus, racks)
    assert int(site.is_spare.sum()) == spares


def test_the_lab_of_the_file_is_the_lab_of_the_code() -> None:
    """Two labs that differ in one rating would make the demo and its tests disagree."""
    assert shipped_site("lab") == lab_site()
    assert jobs_of(lab_site()) == lab_jobs(lab_site())


def test_either_side_of_a_shipped_site_can_carry_it_alone() -> None:
    """That is what two sides are for: each PDU holds what both would, at 66 kW a rack."""
    for name in SHIPPED[1:]:
        site = shipped_site(name)
        assert all(rack.pdu_b_id for rack in site.racks)
        hanging = dict.fromkeys(site.pdu_ids, 0)
        for rack in site.racks:
            hanging[rack.pdu_id] += 1
            hanging[rack.pdu_b_id or ""] += 1
        most_w = {pdu.pdu_id: pdu.rating_w for pdu in site.pdus}
        racks = {pdu: count for pdu, count in hanging.items() if "s" not in pdu}
        assert all(count * 66_000.0 <= most_w[pdu] for pdu, count in racks.items())


def test_patterns_make_many_parts_of_few_lines() -> None:
    """The 100 MW site is seventy lines, not a hundred thousand."""
    site = parse_site(SMALL)
    assert site.rack_ids == ("rack-01", "rack-02", "rack-03", "rack-04")
    assert site.node_ids[-1] == "node-08"
    assert site.feed_of_pdu.tolist() == [0, 1]
    assert site.is_spare.tolist() == [False, True] * 4
    assert site.gpu_id(9) == "node-02/gpu-1"
    assert site.gpu_place("node-02/gpu-1") == 9
    for wrong in ("node-02/gpu-8", "node-99/gpu-0", "node-02", "node-02/gpu-01", "node-02/gpu-x"):
        assert site.gpu_place(wrong) is None


def test_a_small_site_gets_the_same_mix_in_small() -> None:
    """Spares stay free, and nothing is placed twice."""
    site = parse_site(SMALL)
    jobs = hall_jobs(site)
    held = [gpu for job in jobs for gpu in job.gpu_indices]
    assert len(held) == len(set(held)) == 32
    assert not site.is_spare[site.node_of_gpu[held]].any()


def test_a_rack_of_one_gpu_is_a_rack() -> None:
    """Edge sites have them; nothing may divide by eight."""
    text = SMALL.replace("nodes = 2", "nodes = 1\ngpus_per_node = 1").replace("spare_nodes = 1", "")
    assert parse_site(text).gpu_count == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "schema must be 1"),
        ("schema = 1", "schema = = 1", "not TOML"),
        ('name = "small"', 'name = ""', "name must be text"),
        ('name = "small"', 'name = "small"\ngpu = "V100"', "gpu must be one of"),
        ('name = "small"', 'name = "small"\nhost = "barn"', "host must be one of"),
        ('name = "small"', 'name = "small"\nchassis_spread = 0.5', "chassis_spread must be in"),
        ('name = "small"', 'name = "small"\ncolour = 3', "no key 'colour'"),
        ('name = "small"', 'name = "small"\nstorage = 3', "storage must be a table"),
        ("[[cdus]]", '[storage]\nid = "s"\nenergy_j = -1\npower_w = 5\n[[cdus]]', "s: energy_j"),
        ("[[cdus]]", '[storage]\nid = "s"\nenergy_j = 9\npower_w = 0\n[[cdus]]', "s: power_w"),
        ("rating_w = 80_000", "rating_w = 0", "cdu-1: rating_w must be a positive number"),
        ("rating_w = 80_000", "rating_w = -4.0", "cdu-1: rating_w must be a positive number"),
        ("rating_w = 80_000", "rating_w = nan", "cdu-1: rating_w must be a positive number"),
        ("rating_w = 80_000", "rating_w = inf", "cdu-1: rating_w must be a positive number"),
        ("rating_w = 80_000", "rating_w = true", "'cdu-1': rating_w must be a number"),
        ("rating_w = 80_000", "", "'cdu-1': rating_w must be a number"),
        ("rating_w = 80_000", "rating_w = 1\npumps = 3", "cdu-1: pumps must be 1 or 2"),
        ('feed = "feed-{n}"', 'feed = "feed-9"', "pdu-1 is an orphan: there is no feed 'feed-9'"),
        ('pdu_b = "pdu-2"', 'pdu_b = "pdu-9"', "rack-01 is an orphan: there is no PDU 'pdu-9'"),
        ('pdu_b = "pdu-2"', 'pdu_b = "pdu-1"', "rack-01: both of its PDUs are pdu-1"),
        ('cdu = "cdu-1"', 'cdu = "cdu-2"', "there is no CDU 'cdu-2'"),
        ('pdu = "pdu-1"\n\n', 'pdu = "pdu-7"\n\n', "cdu-1 is an orphan: there is no PDU 'pdu-7'"),
        ('feed = "feed-1"', 'feed = "feed-8"', "ups-1 is an orphan: there is no feed 'feed-8'"),
        ("rating_w = 90_000", 'rating_w = 9e4\nunder = "pdu-{n}"', "stands in a circle: pdu-1 ->"),
        ("rating_w = 90_000", 'rating_w = 9e4\nunder = "pdu-1"', "pdu-2: it is on feed 'feed-2'"),
        ("count = 4", "count = 0", "count must be in 1"),
        ("count = 4", "count = 4.0", "count must be a whole number"),
        ("count = 4", "count = 99999999", "count must be in 1"),
        ("nodes = 2", "nodes = 0", "spare_nodes must be in 0..nodes"),
        ("spare_nodes = 1", "spare_nodes = 3", "spare_nodes must be in 0..nodes"),
        ("spare_nodes = 1", "gpus_per_node = 0", "node-01: gpu_count must be at least 1"),
        ("spare_nodes = 1", "a_share = 1.0", "rack-01: a_share must be between 0 and 1"),
        ('"rack-{n:02}"', '"rack"', "id 'rack' is used twice"),
        ('"rack-{n:02}"', '"rack-{q}"', "is not a pattern"),
        ('"rack-{n:02}"', '"rack-{m}"', "counts nodes"),
        ('id = "ups-1"', 'id = "ups-1"\nride_s = -1', "ups-1: ride_s must be"),
        ('id = "ups-1"', 'id = "ups-{n}"\ncount = 2', "ups-2: ups-1 is behind feed-1 already"),
    ],
)
def test_a_file_that_cannot_stand_is_refused_by_name(old: str, new: str, message: str) -> None:
    """Whoever wrote it must find the line; whoever runs it must not get half a site."""
    assert old in SMALL
    with pytest.raises(InvalidRequestError, match=message):
        parse_site(SMALL.replace(old, new, 1))


def test_a_site_without_nodes_is_refused() -> None:
    """Racks alone do nothing."""
    text = SMALL.replace("nodes = 2", "nodes = 0").replace("spare_nodes = 1", "")
    for empty in (text, 'schema = 1\nname = "none"'):
        with pytest.raises(InvalidRequestError, match="at least one node"):
            parse_site(empty)


def test_a_longer_circle_of_pdus_is_named_whole() -> None:
    """A circle of three is found from any of them."""
    chain = "".join(
        f'[[pdus]]\nid = "p{n}"\nfeed = "feed-1"\nunder = "p{n % 3 + 1}"\nrating_w = 1\n\n'
        for n in (1, 2, 3)
    )
    with pytest.raises(InvalidRequestError, match="p1 -> p2 -> p3 -> p1"):
        parse_site(SMALL + chain)


def test_a_factory_takes_a_shipped_site_or_a_file(tmp_path: Path) -> None:
    """`interlock plant --site` is one word for both; an error names the file."""
    assert site_of("lab") == lab_site()
    file = tmp_path / "small.toml"
    file.write_text(SMALL, "utf-8")
    assert site_of(str(file)) == parse_site(SMALL)
    file.write_text("schema = 1", "utf-8")
    with pytest.raises(InvalidRequestError, match=r"small\.toml: the site file: name"):
        site_of(str(file))
    with pytest.raises(InvalidRequestError, match="none of lab, hall, site100mw, nor a file"):
        site_of(str(tmp_path / "none.toml"))


def test_an_unknown_site_is_refused() -> None:
    """The list of those that exist is the help that is needed."""
    with pytest.raises(InvalidRequestError, match="lab, hall, site100mw"):
        shipped_site("moon")
