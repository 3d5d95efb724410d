"""What was taken is not taken again: not by its id, not by its signature, not after a restart."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from interlock_servers.flex import replay_file
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import Deviation, Reason, RejectedError
from interlock_servers.flex.recorded import FILE_NAME, recorded_targets
from interlock_servers.flex.replay_file import ReplayFile
from interlock_servers.flex.replays import ReplayGuard
from interlock_servers.flex.twin import GridIsvTwin, TwinKey
from interlock_servers.flex.twin_wire import sign
from interlock_servers.transports.broker import local_broker
from interlock_tools.clock import ManualClock
from interlock_tools.errors import InvalidRequestError
from tests.servers.flex.conftest import PATIENCE_S, START, MakeSettings
from tests.servers.flex.test_signatures import PAYLOAD, respelt


def test_an_event_is_taken_once(isv_key: TwinKey) -> None:
    """By its id, and by its signature in a new envelope, which nobody signed."""
    guard = ReplayGuard(300.0)
    event_id, compact = str(uuid.uuid4()), sign(PAYLOAD, isv_key)
    guard.take(event_id, START, compact, START)
    for again, signature in (
        (event_id, compact),
        (event_id, sign(PAYLOAD, isv_key)),
        (str(uuid.uuid4()), compact),
        (str(uuid.uuid4()), respelt(compact)),
    ):
        with pytest.raises(RejectedError) as caught:
            guard.take(again, START, signature, START)
        assert caught.value.reason is Reason.REPLAYED
    guard.take(str(uuid.uuid4()), START, sign(PAYLOAD, isv_key), START)


@pytest.mark.parametrize(
    ("age_s", "reason"), [(301.0, Reason.TOO_OLD), (-6.0, Reason.IN_THE_FUTURE)]
)
def test_an_event_of_another_time_is_refused(age_s: float, reason: Reason) -> None:
    """Older than it would be remembered, or not yet due."""
    guard = ReplayGuard(300.0)
    guard.check_time(START - timedelta(seconds=299), START)
    guard.check_time(START + timedelta(seconds=4), START)
    with pytest.raises(RejectedError) as caught:
        guard.check_time(START - timedelta(seconds=age_s), START)
    assert caught.value.reason is reason


def test_a_flood_makes_the_guard_stricter_never_forgetful(
    isv_key: TwinKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an id had to be forgotten, everything as old as it is refused."""
    monkeypatch.setattr("interlock_servers.flex.replays.MAX_REMEMBERED", 3)
    guard = ReplayGuard(300.0)
    events = [(str(uuid.uuid4()), START + timedelta(seconds=n)) for n in range(5)]
    for event_id, sent_at in events:
        guard.take(event_id, sent_at, sign(PAYLOAD, isv_key), START)
    for event_id, sent_at in events:
        with pytest.raises(RejectedError) as caught:
            guard.take(event_id, sent_at, sign(PAYLOAD, isv_key), START)
        assert caught.value.reason in {Reason.REPLAYED, Reason.TOO_OLD}


def reopened(path: Path, now_s: float = 0.0) -> tuple[ReplayGuard, bool]:
    """A guard over the file, as after a restart, and whether it could read all of it."""
    guard = ReplayGuard(300.0, ReplayFile(path))
    return guard, guard.recall(START + timedelta(seconds=now_s))


def refusal(act: Callable[..., None], *arguments: Any) -> Reason | None:
    """Why it is refused; None where it is not."""
    try:
        act(*arguments)
    except RejectedError as error:
        return error.reason
    return None


@pytest.mark.trap("FX-R01")
def test_a_signature_that_was_taken_is_known_after_a_restart(
    tmp_path: Path, isv_key: TwinKey
) -> None:
    """Long after its own time: anyone can write a fresh `time` around it."""
    path, compact = tmp_path / "replays.log", sign(PAYLOAD, isv_key)
    first, whole = reopened(path)
    assert whole
    first.take(str(uuid.uuid4()), START, compact, START)
    first.close()
    later = START + timedelta(days=3)
    second, whole = reopened(path, now_s=3 * 86_400)
    assert whole
    for spelling in (compact, respelt(compact)):
        said = refusal(second.take, str(uuid.uuid4()), later, spelling, later)
        assert said is Reason.REPLAYED
    second.take(str(uuid.uuid4()), later, sign(PAYLOAD, isv_key), later)
    second.close()


def test_what_says_how_old_it_is_is_forgotten_with_its_time(
    tmp_path: Path, isv_key: TwinKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's states come every few seconds; they must not push a target out of the memory."""
    monkeypatch.setattr("interlock_servers.flex.replays.MAX_REMEMBERED", 50)
    target = sign(PAYLOAD, isv_key)
    guard, _ = reopened(tmp_path / "replays.log")
    guard.take(str(uuid.uuid4()), START, target, START)
    now = START
    for _ in range(60):
        now += timedelta(seconds=10)
        guard.take(str(uuid.uuid4()), now, sign(PAYLOAD, isv_key), now, dated=True)
    assert refusal(guard.take, str(uuid.uuid4()), now, target, now) is Reason.REPLAYED
    guard.close()


@pytest.mark.trap("FX-R03")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"",
        lambda text: text.replace(b"lasts", b"lasted", 1),
        lambda text: text[200:],
        lambda text: b"\n".join(text.split(b"\n")[1:]),
        lambda text: b"garbage\n" + text,
    ],
    ids=["emptied", "altered", "beheaded", "without its head", "preceded"],
)
def test_a_memory_that_cannot_be_read_makes_us_believe_nothing_older(
    tmp_path: Path, isv_key: TwinKey, spoil: Callable[[bytes], bytes]
) -> None:
    """It says so by name, keeps the file for people, and stays so over the next restart."""
    path = tmp_path / "replays.log"
    guard, _ = reopened(path)
    guard.take(str(uuid.uuid4()), START, sign(PAYLOAD, isv_key), START)
    guard.close()
    spoilt = spoil(path.read_bytes())
    path.write_bytes(spoilt)
    for expected in (False, True):
        guard, whole = reopened(path, now_s=60.0)
        assert whole is expected
        now = START + timedelta(seconds=100)
        for age_s, reason in ((45.0, Reason.MEMORY_LOST), (30.0, None)):
            sent_at = now - timedelta(seconds=age_s)
            assert refusal(guard.check_time, sent_at, now) is reason
        old, young = START - timedelta(seconds=241), START - timedelta(seconds=239)
        assert refusal(guard.check_signed, [young, old]) is Reason.MEMORY_LOST
        guard.check_signed([young])
        guard.close()
    assert path.with_name("replays.log.unreadable").read_bytes() == spoilt


def test_a_line_that_was_cut_off_while_it_was_written_loses_nothing_else(
    tmp_path: Path, isv_key: TwinKey
) -> None:
    """It was not taken yet: a line is written before what it stands for counts."""
    path = tmp_path / "replays.log"
    kept, cut = sign(PAYLOAD, isv_key), sign(PAYLOAD, isv_key)
    guard, _ = reopened(path)
    guard.take(str(uuid.uuid4()), START, kept, START)
    guard.take(str(uuid.uuid4()), START, cut, START)
    guard.close()
    path.write_bytes(path.read_bytes()[:-9])
    guard, whole = reopened(path)
    assert whole
    assert refusal(guard.take, str(uuid.uuid4()), START, kept, START) is Reason.REPLAYED
    guard.take(str(uuid.uuid4()), START, cut, START)
    guard.close()


def test_the_file_is_bounded_and_outlives_a_disk_that_was_full(
    tmp_path: Path, isv_key: TwinKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written anew when it is long, and when writing failed before."""
    monkeypatch.setattr(replay_file, "MAX_LINES", 20)
    monkeypatch.setattr("interlock_servers.flex.replays.MAX_REMEMBERED", 10)
    path = tmp_path / "replays.log"
    guard, _ = reopened(path)
    now = START
    for _ in range(50):
        now += timedelta(seconds=1)
        guard.take(str(uuid.uuid4()), now, last := sign(PAYLOAD, isv_key), now)
        assert path.read_bytes().count(b"\n") <= 20
    with monkeypatch.context() as full:
        full.setattr("os.fsync", _full)
        guard.take(str(uuid.uuid4()), now, unkept := sign(PAYLOAD, isv_key), now)
    guard.take(str(uuid.uuid4()), now, sign(PAYLOAD, isv_key), now)
    guard.close()
    guard, whole = reopened(path, now_s=50.0)
    assert whole
    for compact in (last, unkept):
        said = refusal(guard.take, str(uuid.uuid4()), now, compact, now)
        assert said is Reason.REPLAYED
    guard.close()


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


async def test_a_client_that_starts_again_refuses_a_recorded_target_in_a_fresh_envelope(
    tmp_path: Path, settings: MakeSettings, isv_key: TwinKey
) -> None:
    """On the wire; and no second process may keep the same memory."""
    clock = ManualClock(START)
    async with local_broker() as broker, GridIsvTwin(broker, isv_key, clock) as isv:
        ours = settings(broker)
        async with FlexClient(ours, clock, folder=tmp_path) as client:
            await client.wait_connected(PATIENCE_S)
            await isv.set_target(5_000.0, feed_tags=["main-a"])
            with anyio.fail_after(PATIENCE_S):
                await client.wait_until(lambda: client.accepted == 1)
            with pytest.raises(InvalidRequestError, match="another process"):
                await FlexClient(ours, clock, folder=tmp_path).__aenter__()
            in_force = client.targets_in_force(START)["main-a"]
        assert recorded_targets(tmp_path / FILE_NAME) == (in_force,)
        clock.advance(86_400.0)
        async with FlexClient(ours, clock, folder=tmp_path) as client:
            await client.wait_connected(PATIENCE_S)
            await isv.rewrap()
            with anyio.fail_after(PATIENCE_S):
                await client.wait_until(lambda: Reason.REPLAYED in client.rejected())
            assert client.targets_in_force(clock.now()) == {}
        (tmp_path / "flex-replays-interlock-flex.log").write_bytes(b"spoilt\n")
        async with FlexClient(ours, clock, folder=tmp_path) as client:
            assert client.deviations() == {Deviation.REPLAY_MEMORY_LOST: 1}
