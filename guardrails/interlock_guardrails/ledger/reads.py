"""Group commit: many callers hand over records and go on, one thread writes them together.

A caller never waits for the disk. What does not fit into the bounded queue is counted, and the
count is handed over with the next batch. It does not know what a record is or where it goes.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from interlock_guardrails.ledger.records import Draft
from interlock_tools.errors import UnavailableError

logger = logging.getLogger(__name__)

BATCH = 500  # records in one transaction
LATE_S = 1.0  # how long a record may wait for company
GATHER_S = 0.002  # a fraction of what a commit takes on most disks
CAPACITY = 20_000  # records that may wait; some 10 MB


class GroupCommit:
    """A bounded queue and the thread that empties it.

    Args:
        write: commits a batch and the number dropped before it; what it raises is logged, and the
            same batch is tried again.
        capacity: records that may wait before further ones are dropped.
        batch: records that are written without waiting for more, and the most in one batch.
        late_s: seconds that a record may wait.
        gather_s: the longest time that a batch with callers waiting for it is held back, and only
            while fewer of them are there than waited for the batch before.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Draft], int], None],
        *,
        capacity: int = CAPACITY,
        batch: int = BATCH,
        late_s: float = LATE_S,
        gather_s: float = GATHER_S,
    ) -> None:
        self._write = write
        self._capacity, self._batch = capacity, batch
        self._late_s, self._gather_s = late_s, gather_s
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._queue: deque[Draft] = deque()
        self._dropped = 0
        self._accepted = self._settled = self._wanted = 0  # running counts of records
        self._joined = self._company = 0  # who waits for the next batch; who waited for the last
        self._failures = 0
        self._failing = self._stopping = self._ended = self._gathering = False
        self._thread = threading.Thread(target=self._run, name="ledger-reads", daemon=True)
        self._thread.start()

    def offer(self, draft: Draft) -> bool:
        """Hand over a record; False when there was no room and it was only counted."""
        with self._lock:
            if self._stopping or len(self._queue) >= self._capacity:
                self._dropped += 1
                return False
            self._queue.append(draft)
            self._accepted += 1
            if len(self._queue) == self._batch:
                self._work.notify()
        return True

    @property
    def waiting(self) -> int:
        """How many callers wait for a batch that is not being written yet."""
        with self._lock:
            return self._joined

    def flush(self) -> None:
        """Wait until all that was handed over before is committed.

        Raises:
            UnavailableError: a write failed meanwhile; the records still wait for another attempt,
                unless the queue is closed.
        """
        with self._lock:
            ticket, failures = self._accepted, self._failures
            if self._settled >= ticket:
                return
            self._wanted = max(self._wanted, ticket)
            self._joined += 1
            if not self._gathering or self._joined >= self._company:
                self._work.notify()
            while self._settled < ticket and self._failures == failures and not self._ended:
                self._done.wait()
            if self._settled < ticket:
                raise UnavailableError(f"{len(self._queue)} records could not be written yet")

    def close(self) -> None:
        """Write what waits and end the thread.

        Raises:
            UnavailableError: the last write failed; what waited is lost.
        """
        with self._lock:
            self._stopping = True
            self._work.notify()
        self._thread.join()
        with self._lock:
            lost = len(self._queue) + self._dropped
        if lost:
            raise UnavailableError(f"{lost} records were not written before the end")

    def _run(self) -> None:
        while self._turn():
            pass
        with self._lock:
            self._ended = True
            self._done.notify_all()

    def _turn(self) -> bool:
        """Wait and write one batch; False when it was the last turn."""
        with self._lock:
            self._work.wait_for(self._is_due, timeout=self._late_s)
            self._gather()
            batch = list(islice(self._queue, self._batch))
            dropped, stopping = self._dropped, self._stopping
        written = self._try_write(batch, dropped) if batch or dropped else True
        with self._lock:
            self._failing = not written
            if written:
                for _ in batch:
                    self._queue.popleft()
                self._dropped -= dropped
                self._settled += len(batch)
            else:
                self._failures += 1
                self._wanted = self._settled
            self._done.notify_all()
            return not stopping or (written and bool(self._queue))

    def _gather(self) -> None:
        """With the lock held: where several waited for the last batch, give them time to return."""
        if 1 < self._company > self._joined and not self._stopping:
            self._gathering = True
            self._work.wait_for(self._is_gathered, timeout=self._gather_s)
            self._gathering = False
        self._company, self._joined = min(self._joined, self._batch), 0

    def _is_gathered(self) -> bool:
        return self._stopping or self._joined >= self._company

    def _is_due(self) -> bool:
        full = len(self._queue) >= self._batch and not self._failing
        return self._stopping or self._wanted > self._settled or full

    def _try_write(self, batch: Sequence[Draft], dropped: int) -> bool:
        try:
            self._write(batch, dropped)
        except Exception:  # whatever it was, the batch is kept and tried again
            logger.exception("a batch of the ledger was not written")
            return False
        return True
