"""The contract of one GPU and of one host's GPUs, whatever library or BMC stands behind them.

It reads, and it can do one thing: set a power limit. There is nothing here for clocks, modes or
MIG, so nothing that is built on it can touch them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from interlock_servers.devices.models import (
    SAME_W,
    GpuIdentity,
    GpuReading,
    LimitOutcome,
    Outcome,
    PowerLimits,
    Unread,
    Why,
    known,
)

T = TypeVar("T")

MOST_POSSIBLE_W: Final = 20_000.0  # no limit of one GPU or module is above it


class CannotReadError(Exception):
    """One value could not be read; it carries why. It never leaves the devices.

    Attributes:
        code: the library's own number, where it gave one.
    """

    def __init__(self, unread: Unread, code: int | None = None) -> None:
        super().__init__(str(unread))
        self.unread = unread
        self.code = code


class RefusedError(Exception):
    """The device or its library said no to a limit, in its own words; nothing was changed."""


class UnansweredError(Exception):
    """A limit was sent and no answer came: it may have been set."""


class GpuDevice(ABC):
    """One GPU. Its calls block, and may hang with the driver: run them in a thread."""

    identity: GpuIdentity

    @abstractmethod
    def read(self) -> GpuReading:
        """Everything that it says now. It never raises: what fails is `Unread` with its reason."""

    @abstractmethod
    def limits(self) -> PowerLimits:
        """Its limits alone, read anew."""

    @abstractmethod
    def command_limit_w(self, limit_w: float) -> None:
        """Ask for a limit, once. What became of it is for `limits` to say.

        Raises:
            RefusedError: it said no.
            UnansweredError: it said nothing.
        """

    def set_power_limit(
        self, limit_w: float, *, wait: Callable[[], None] | None = None
    ) -> LimitOutcome:
        """Set a limit and read it back; sent once, never again.

        Args:
            limit_w: of this one GPU.
            wait: called between two read-backs, to see a limit that does not last; None for one.

        Returns:
            What the device says afterwards. Where its range is not known nothing is sent.
        """
        before = self.limits()
        before_w = known(before.now_w)

        def outcome(kind: Outcome, after_w: float | None, why: str) -> LimitOutcome:
            return LimitOutcome(self.identity.key, limit_w, kind, before_w, after_w, why)

        if (why_not := why_not_settable(before, limit_w)) is not None:
            return outcome(Outcome.REFUSED, before_w, why_not)
        refused = unanswered = ""
        try:
            self.command_limit_w(limit_w)
        except RefusedError as error:
            refused = str(error)
        except UnansweredError as error:
            unanswered = str(error)
        after = self.limits().now_w
        if refused:
            after_w = known(after)
            moved = (
                before_w is not None and after_w is not None and abs(after_w - before_w) > SAME_W
            )
            return outcome(Outcome.CLAMPED if moved else Outcome.REFUSED, after_w, refused)
        if isinstance(after, Unread):
            return outcome(Outcome.UNKNOWN, None, f"its limit cannot be read back: {after}")
        if abs(after - limit_w) > SAME_W:
            if unanswered:
                return outcome(Outcome.UNKNOWN, after, f"{unanswered}; it may still come")
            if before_w is not None and abs(after - before_w) <= SAME_W:
                return outcome(Outcome.IGNORED, after, "it said yes and did nothing")
            return outcome(Outcome.CLAMPED, after, f"it took {after:g} W instead")
        if wait is not None:
            wait()
            later = self.limits().now_w
            if isinstance(later, Unread):
                return outcome(Outcome.UNKNOWN, None, f"it held at first, and then: {later}")
            if abs(later - limit_w) > SAME_W:
                why = f"it said {after:g} W and later {later:g} W: a reset, or another writer"
                return outcome(Outcome.REVERTED, later, why)
        return outcome(Outcome.APPLIED, after, "")


class GpuHost(ABC):
    """The GPUs of one host behind one library or BMC; opened by entering it.

    Attributes:
        says: what it is, such as `NVML 13.615, driver 580.95`, for people.
    """

    says: str = ""

    @abstractmethod
    def devices(self) -> Sequence[GpuDevice]:
        """Its GPUs, in the order of their index; empty where there are none.

        Raises:
            UnavailableError: the library, the driver or the BMC is not there; says which.
            ComponentError: it is there and failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the library or the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def why_not_settable(limits: PowerLimits, limit_w: float) -> str | None:
    """Why this limit is not to be sent at all, or None where it may be."""
    least_w, most_w = known(limits.min_w), known(limits.max_w)
    if not 0.0 < limit_w <= MOST_POSSIBLE_W:
        return f"{limit_w:g} W is no limit of a GPU"
    if least_w is None or most_w is None:
        unread = limits.min_w if isinstance(limits.min_w, Unread) else limits.max_w
        return f"its range is not known ({unread}), so nothing is sent"
    if not least_w <= limit_w <= most_w:
        return f"{limit_w:g} W is not in its range of {least_w:g} to {most_w:g} W"
    return None


def try_read(read: Callable[[], T]) -> T | Unread:
    """What `read` gives, or why it gave nothing."""
    try:
        return read()
    except CannotReadError as error:
        return error.unread


def implausible(detail: str) -> CannotReadError:
    """For an answer that cannot be."""
    return CannotReadError(Unread(Why.IMPLAUSIBLE, detail))
