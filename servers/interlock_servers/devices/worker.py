"""One thread for one driver: a driver that hangs holds one thread, and nothing queues behind it.

Calls into a driver cannot be ended. So whoever waits for one waits for a bounded time, and what had
not begun by then is never begun: a limit that was asked for before a hang must not come after it.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class HungError(Exception):
    """The driver did not answer in time. `begun` says whether the call is in it now."""

    def __init__(self, *, begun: bool) -> None:
        super().__init__("the driver does not answer")
        self.begun = begun


class _Job:
    """One call, which is either begun or given up, never both."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
        self._lock = threading.Lock()
        self._begun = self._given_up = False
        self.loop = loop
        self.call = call
        self.done: asyncio.Future[Any] = loop.create_future()

    def begin(self) -> bool:
        """Whether the thread may do it."""
        with self._lock:
            self._begun = not self._given_up
            return self._begun

    def give_up(self) -> bool:
        """Never begin it; returns whether it was begun before."""
        with self._lock:
            self._given_up = True
            return self._begun


class DriverThread:
    """Calls of one driver, one after another, in a thread that does not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """What `call` gives.

        Raises:
            HungError: it was not done in time. Where it had not begun it never will be.
        """
        job = _Job(asyncio.get_running_loop(), call)
        self._jobs.put(job)
        try:
            done: T = await asyncio.wait_for(asyncio.shield(job.done), timeout_s)
        except TimeoutError:
            if job.done.done():  # the call itself failed so, or it was done at the last moment
                return await job.done  # type: ignore[no-any-return]
            raise HungError(begun=job.give_up()) from None
        except asyncio.CancelledError:
            job.give_up()
            raise
        return done

    def close(self) -> None:
        """Let the thread end when it can; a hung one ends with the process."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.begin():
                continue
            answer: Any = None
            failure: Exception | None = None
            try:
                answer = job.call()
            except Exception as error:
                failure = error
            try:
                job.loop.call_soon_threadsafe(_settle, job.done, answer, failure)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _settle(done: "asyncio.Future[Any]", answer: Any, failure: Exception | None) -> None:
    if done.cancelled():
        return
    if failure is None:
        done.set_result(answer)
    else:
        done.set_exception(failure)
        done.exception()  # whoever gave up waiting does not ask for it
