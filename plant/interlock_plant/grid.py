"""Grid events: a target for the site with notice, duration and ramps. The plant forces nothing."""

from dataclasses import dataclass
from math import inf, isfinite

from interlock_tools.errors import InvalidRequestError


@dataclass(frozen=True)
class GridEvent:
    """The site is to draw at most `target_w`, from `begins_s` to `ends_s` after the plant's start.

    The limit goes down from what the site draws at the beginning, and back up to it after the end,
    at `ramp_w_per_s`; infinite is a step. The notice is the time from the announcement to the
    beginning. Known cases: Phoenix -25 % for 3 h; London -30 % within 30 s, up to 10 h. [P/S]
    """

    begins_s: int
    ends_s: int
    target_w: float
    ramp_w_per_s: float = inf

    def __post_init__(self) -> None:
        if not 0 <= self.begins_s < self.ends_s:
            raise InvalidRequestError("a grid event must end after it begins, and not before 0")
        if not (isfinite(self.target_w) and self.target_w > 0):
            raise InvalidRequestError(f"target_w must be a positive number, not {self.target_w}")
        if not self.ramp_w_per_s > 0:
            raise InvalidRequestError("ramp_w_per_s must be positive")


@dataclass
class GridState:
    """Events announced and not over, in order, and the draw from which the first one ramps."""

    events: tuple[GridEvent, ...] = ()
    from_w: float | None = None


def announce(state: GridState, event: GridEvent, second: int) -> None:
    """Take an event on; two may not overlap.

    Raises:
        InvalidRequestError: it has begun already, or overlaps another.
    """
    if event.begins_s < second:
        raise InvalidRequestError(f"the event begins at {event.begins_s} s; it is {second} s")
    for other in state.events:
        if event.begins_s < other.ends_s and other.begins_s < event.ends_s:
            raise InvalidRequestError("two grid events overlap")
    state.events = tuple(sorted((*state.events, event), key=lambda known: known.begins_s))


def limit_w(state: GridState, second: int, site_w: float) -> tuple[bool, float | None]:
    """Whether an event says what the limit is now, and that limit; None is no limit.

    Drops the first event once it is over and the limit is back where it began.
    """
    if not state.events or second < state.events[0].begins_s:
        return False, None
    event = state.events[0]
    if state.from_w is None:
        state.from_w = site_w
    if second < event.ends_s:
        gone_w = event.ramp_w_per_s * (second - event.begins_s + 1)
        return True, max(event.target_w, state.from_w - gone_w)
    up_w = event.target_w + event.ramp_w_per_s * (second - event.ends_s + 1)
    if up_w < state.from_w and not (len(state.events) > 1 and second >= state.events[1].begins_s):
        return True, up_w
    state.events, state.from_w = state.events[1:], None
    return True, None
