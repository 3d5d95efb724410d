"""The thread of a driver: bounded for who waits, and nothing comes late."""

import threading

import anyio
import pytest

from interlock_servers.devices.worker import DriverThread, HungError

PATIENCE_S = 20.0


@pytest.mark.trap("DV-G01")
async def test_what_had_not_begun_when_its_time_was_over_never_begins() -> None:
    """A limit asked for before a hang would otherwise be set minutes after it was given up."""
    driver, release = DriverThread("test"), threading.Event()
    done: list[str] = []

    def hangs() -> None:
        release.wait(PATIENCE_S)
        done.append("first")

    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(HungError) as first:
            await driver.run(hangs, 0.1)
        with pytest.raises(HungError) as second:
            await driver.run(lambda: done.append("second"), 0.1)
        release.set()
        await driver.run(lambda: done.append("third"), PATIENCE_S)
    driver.close()
    assert (first.value.begun, second.value.begun) == (True, False)
    assert done == ["first", "third"]


async def test_a_failure_reaches_who_waits_for_it() -> None:
    """As it was raised, a timeout of the call's own too."""
    driver = DriverThread("test")

    def fails(error: Exception) -> None:
        raise error

    with anyio.fail_after(PATIENCE_S):
        for error in (ValueError("no"), TimeoutError("its own")):
            with pytest.raises(type(error), match=str(error)):
                await driver.run(lambda error=error: fails(error), PATIENCE_S)  # type: ignore[misc]
        assert await driver.run(lambda: 7, PATIENCE_S) == 7
    driver.close()


async def test_who_is_cancelled_leaves_nothing_behind_that_begins_later() -> None:
    """A caller that went away did not want it any more."""
    driver, release = DriverThread("test"), threading.Event()
    done: list[str] = []
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(HungError):
            await driver.run(lambda: release.wait(PATIENCE_S), 0.1)
        with anyio.move_on_after(0.1):
            await driver.run(lambda: done.append("late"), PATIENCE_S)
        release.set()
        await driver.run(lambda: done.append("last"), PATIENCE_S)
    driver.close()
    assert done == ["last"]
