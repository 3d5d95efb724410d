"""What a day is made of: the site, the breaker that is too small, the events and their seconds."""

from dataclasses import dataclass, replace
from importlib import resources
from typing import Final

from interlock_evals.day.load import DAY_S
from interlock_plant.faults import FaultKind
from interlock_plant.grid import GridEvent
from interlock_plant.scenario import Scenario, parse_scenario
from interlock_plant.site import SiteSpec
from interlock_plant.site_file import shipped_site
from interlock_tools.errors import InvalidRequestError


@dataclass(frozen=True)
class Story:
    """One day.

    Attributes:
        name: of its report.
        site: what stands where.
        scenario: what happens.
        seconds: how long it is.
        small_pdu: the PDU whose breaker was made smaller, and what it carries.
        others: what a second ISV asks, in seconds of its word and as an event; the plant knows
            nothing of it.
    """

    name: str
    site: SiteSpec
    scenario: Scenario
    seconds: int
    small_pdu: tuple[str, float]
    others: tuple[tuple[int, GridEvent], ...] = ()


# Day: site, scenario file, length, PDU with the small breaker and its rating. [A]
DRAWS_W: Final = {"lab": 435_000.0}  # in the hour before the cut, from the plant alone
STORIES: Final = {
    "lab": ("lab", "lab.toml", DAY_S, ("pdu-2", 206_000.0)),
    "dark": ("lab", "lab.toml", DAY_S, ("pdu-2", 206_000.0)),  # nobody power-cycles the leaky rack
    "short": ("lab", "short.toml", 1_200, ("pdu-2", 206_000.0)),
}


def story_of(name: str, cut: float | None = None) -> Story:
    """The day of this name; with another `cut`, as a share of what the site draws, where given.

    Raises:
        InvalidRequestError: there is no such day, or the share is none.
    """
    if name not in STORIES:
        raise InvalidRequestError(f"there is no day {name!r}; there are {', '.join(STORIES)}")
    site_name, file, seconds, small = STORIES[name]
    site = shipped_site(site_name)
    pdus = tuple(
        replace(pdu, rating_w=small[1]) if pdu.pdu_id == small[0] else pdu for pdu in site.pdus
    )
    if cut is not None and not 0.0 < cut < 1.0:
        raise InvalidRequestError(f"cut: a share in (0, 1), not {cut:g}")
    text = (resources.files("interlock_evals.day") / file).read_text("utf-8")
    scenario = parse_scenario(text)
    if name == "dark":
        faults = [(at, f) for at, f in scenario.faults if f.kind is not FaultKind.NODE_DOWN]
        scenario = replace(scenario, faults=tuple(faults))
    report = "day" if name == "lab" else f"day-{name}"
    if cut is not None:
        target_w = round((1.0 - cut) * DRAWS_W[site_name], -3)
        events = tuple((at, replace(event, target_w=target_w)) for at, event in scenario.grid)
        scenario, report = replace(scenario, grid=events), f"{report}-cut{100 * cut:.0f}"
    return Story(report, replace(site, pdus=pdus), scenario, seconds, small)
