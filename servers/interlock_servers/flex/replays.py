"""What was taken is not taken again, also after a restart.

The contract signs `data` and nothing else, so an old signature can be put into a new envelope; the
signature itself is therefore remembered as well as the event id.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.replay_file import ReplayFile, Taken
from interlock_servers.flex.signatures import fingerprint

FUTURE_TOLERANCE_S: Final = 5.0  # clocks of the grid and of ours may differ by this much
MAX_REMEMBERED: Final = 20_000


class ReplayGuard:
    """Remembers what was taken: ids as long as their `time` would let them in; many signatures.

    Only verified events are remembered: an unsigned one must not use up the id of a true one. Safe
    between threads.
    """

    def __init__(self, window_s: float, file: ReplayFile | None = None) -> None:
        """Remember for `window_s`, in `file` too where there is one; see `recall`."""
        self._window_s = window_s
        self._file = file
        self._lock = threading.Lock()
        self._ids: OrderedDict[str, Taken] = OrderedDict()
        self._signatures: OrderedDict[bytes, Taken] = OrderedDict()  # of what has no signed moment
        self._floor: datetime | None = None
        self._lost_at: datetime | None = None

    def recall(self, now: datetime) -> bool:
        """Read what was remembered before; false where that cannot be read and is lost.

        Raises:
            InvalidRequestError: the file is another process's, or cannot be made.
        """
        if self._file is None:
            return True
        remembered = self._file.open(now)
        with self._lock:
            self._lost_at = remembered.lost_at
            for taken in remembered.taken:
                self._remember(taken, now)
        return remembered.whole

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def check_time(self, sent_at: datetime, now: datetime) -> None:
        """Refuse an event that is too old to be remembered, or not yet due.

        Raises:
            RejectedError: `TOO_OLD`, `IN_THE_FUTURE`; `MEMORY_LOST`, it may have been taken before.
        """
        age_s = (now - sent_at).total_seconds()
        if age_s > self._window_s:
            raise RejectedError(
                Reason.TOO_OLD,
                f"its time lies {age_s:.1f} s back; {self._window_s:g} s is the most",
            )
        if -age_s > FUTURE_TOLERANCE_S:
            raise RejectedError(Reason.IN_THE_FUTURE, f"its time lies {-age_s:.1f} s ahead")
        if self._lost_at is not None and sent_at <= self._lost_at:
            raise self._lost()

    def check_signed(self, moments: Iterable[datetime]) -> None:
        """Refuse what was signed for a moment long before the memory was lost.

        Raises:
            RejectedError: `MEMORY_LOST`.
        """
        if self._lost_at is None:
            return
        oldest = self._lost_at - timedelta(seconds=self._window_s)
        if any(moment < oldest for moment in moments):
            raise self._lost()

    def _lost(self) -> RejectedError:
        return RejectedError(
            Reason.MEMORY_LOST,
            f"what was taken before {self._lost_at} is not known any more; send it anew",
        )

    def take(
        self, event_id: str, sent_at: datetime, compact: str, now: datetime, *, dated: bool = False
    ) -> None:
        """Let a verified event in once; `dated` where what is signed says of which moment it is.

        Raises:
            RejectedError: `REPLAYED`; or `TOO_OLD`, where so many events came that ids of its time
                had to be forgotten.
        """
        taken = Taken(event_id, sent_at, fingerprint(compact), lasts=not dated)
        with self._lock:
            if event_id in self._ids:
                raise RejectedError(Reason.REPLAYED, f"event {event_id} was taken before")
            if taken.signature in self._signatures:
                raise RejectedError(
                    Reason.REPLAYED, f"event {event_id} carries a signature that was taken before"
                )
            if self._floor is not None and sent_at <= self._floor:
                raise RejectedError(Reason.TOO_OLD, "events of its time are no longer remembered")
            self._remember(taken, now)
            if self._file is not None and not self._file.add(taken):
                self._file.rewrite(self._all(), self._lost_at)

    def _remember(self, taken: Taken, now: datetime) -> None:
        expired = now - timedelta(seconds=self._window_s)
        while self._ids and (first := next(iter(self._ids.values()))).sent_at < expired:
            self._drop(first)
        if len(self._ids) >= MAX_REMEMBERED:
            first = next(iter(self._ids.values()))
            self._drop(first)
            self._floor = first.sent_at if self._floor is None else max(self._floor, first.sent_at)
        if len(self._signatures) >= MAX_REMEMBERED:
            self._signatures.popitem(last=False)
        if taken.sent_at >= expired:
            self._ids[taken.event_id] = taken
            self._signatures[taken.signature] = taken
        elif taken.lasts:
            self._signatures[taken.signature] = taken

    def _drop(self, taken: Taken) -> None:
        """Forget an id; with it its signature, where what was signed says how old it is."""
        del self._ids[taken.event_id]
        if not taken.lasts:
            self._signatures.pop(taken.signature, None)

    def _all(self) -> list[Taken]:
        known = {taken.signature: taken for taken in self._signatures.values()}
        return list(known.values())
