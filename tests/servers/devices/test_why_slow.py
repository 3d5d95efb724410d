"""Why a GPU is slow: the cause, in words and numbers, from what was read and nothing else."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock_plant import Fault, FaultKind, Plant
from interlock_servers.devices.device import GpuDevice
from interlock_servers.devices.models import (
    Ecc,
    EventReason,
    GpuIdentity,
    GpuReading,
    PowerLimits,
    RemappedRows,
    Unread,
    Vendor,
    Violation,
    Why,
    Xid,
    known,
)
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.why_slow import Cause, why_slow
from tests.servers.devices.conftest import START, Opener
from tests.servers.devices.test_contract import let_pass

GONE = Unread(Why.NOT_SUPPORTED, "Not Supported")
CALM = GpuReading(
    identity=GpuIdentity(0, Vendor.NVIDIA, "GPU-1", "1", "H100", "00"),
    observed_at=START,
    limits=PowerLimits(700.0, 700.0, 200.0, 700.0, 700.0, 700.0),
    power_average_w=650.0,
    events=EventReason(0),
    violations_s=dict.fromkeys(Violation, 0.0),
    temperature_c=55.0,
    memory_temperature_c=70.0,
)


def later(reading: GpuReading, seconds: float = 10.0, **held_s: float) -> GpuReading:
    """The same some time on, its counters moved."""
    moved = {Violation(name): value for name, value in held_s.items()}
    return replace(
        reading,
        observed_at=reading.observed_at + timedelta(seconds=seconds),
        violations_s={**reading.violations_s, **moved},
    )


# ── on a GPU of the plant ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def gpu(opened: Opener) -> GpuDevice:
    """The first, through NVML."""
    return opened("nvml").devices()[0]


def test_a_gpu_that_works_as_it_can_has_no_cause(gpu: GpuDevice, plant: Plant) -> None:
    """And says that it was looked for."""
    earlier = gpu.read()
    let_pass(plant, 10)
    found = why_slow(gpu.read(), earlier)
    assert found.causes == ()
    assert found.text == "Nothing that was read holds it."


def test_a_cap_is_told_with_its_watts_and_how_long_it_held(gpu: GpuDevice, plant: Plant) -> None:
    """What it draws, what it may, what it could, and the share of the time."""
    gpu.set_power_limit(400.0)
    let_pass(plant, 5)
    earlier = gpu.read()
    let_pass(plant, 20)
    found = why_slow(gpu.read(), earlier)
    assert found.causes == (Cause.POWER_CAP,)
    assert found.findings[0].share == 1.0
    assert "power limit of 400 W (default 700 W)" in found.text
    assert "it draws 396 W" in found.text
    assert "for 20.0 of 20.0 s (100%)" in found.text


def test_heat_and_the_brake_are_told_apart_on_the_same_rack(
    opened: Opener, plant: Plant, twin: HostTwin
) -> None:
    """A lost coolant loop heats, a pulled brake does not; both slow the hardware."""
    device = opened("nvml").devices()[0]
    plant.brake([twin.gpus[0]])
    let_pass(plant, 10)
    braked = why_slow(device.read())
    assert braked.causes == (Cause.POWER_BRAKE,)
    assert "0x80" in braked.text
    plant.brake([twin.gpus[0]], on=False)
    plant.inject(Fault(FaultKind.CDU_LOSS, plant.site.cdu_ids[0]))
    for _ in range(900):
        plant.step()
        events = known(device.read().events)
        if events is None or EventReason.HW_THERMAL in events:
            break
    heated = why_slow(device.read())
    assert Cause.THERMAL in heated.causes
    assert Cause.POWER_BRAKE not in heated.causes
    assert "core 8" in heated.text


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(GpuFault.SYNC_BOOST, Cause.SYNC_BOOST), (GpuFault.RELIABILITY, Cause.RELIABILITY)],
)
def test_sync_boost_and_reliability_are_causes_of_their_own(
    gpu: GpuDevice, plant: Plant, twin: HostTwin, fault: GpuFault, cause: Cause
) -> None:
    """Reliability has a counter and no bit; sync boost has both."""
    twin.inject(fault, [0])
    earlier = gpu.read()
    let_pass(plant, 10)
    assert why_slow(gpu.read(), earlier).causes == (cause,)


# ── readings alone ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("bit", "cause"),
    [
        (0x1, Cause.IDLE),
        (0x2, Cause.CLOCKS_SET),
        (0x4, Cause.POWER_CAP),
        (0x8, Cause.HARDWARE_SLOWDOWN),
        (0x10, Cause.SYNC_BOOST),
        (0x20, Cause.THERMAL),
        (0x40, Cause.THERMAL),
        (0x80, Cause.POWER_BRAKE),
        (0x100, Cause.CLOCKS_SET),
    ],
)
def test_every_bit_has_its_cause_and_is_named_in_the_evidence(bit: int, cause: Cause) -> None:
    """Bit by bit."""
    found = why_slow(replace(CALM, events=EventReason(bit)))
    assert found.causes == (cause,)
    assert f"0x{bit:x}" in found.text


@pytest.mark.parametrize(
    ("counter", "cause"),
    [
        ("power", Cause.POWER_CAP),
        ("thermal", Cause.THERMAL),
        ("sync_boost", Cause.SYNC_BOOST),
        ("board_limit", Cause.BOARD_LIMIT),
        ("reliability", Cause.RELIABILITY),
        ("sw_thermal", Cause.THERMAL),
        ("hw_thermal", Cause.THERMAL),
        ("hw_power_brake", Cause.POWER_BRAKE),
    ],
)
def test_what_held_it_in_between_is_told_when_it_no_longer_does(counter: str, cause: Cause) -> None:
    """A moment between two peaks would say that nothing is the matter."""
    found = why_slow(later(CALM, **{counter: 3.0}), CALM)
    assert found.causes == (cause,)
    assert not found.findings[0].is_now
    assert found.findings[0].share == pytest.approx(0.3)
    assert "3.0 of 10.0 s (30%)" in found.text


def test_what_counts_sums_of_others_is_no_cause() -> None:
    """Below application clocks is by any of them; low utilisation is no limit."""
    moved = later(CALM, below_application_clocks=9.0, below_base_clocks=9.0, low_utilization=9.0)
    assert why_slow(moved, CALM).causes == ()


def test_faults_come_first_and_what_holds_most_before_what_holds_less() -> None:
    """A person reads from the top."""
    broken = replace(
        later(CALM, power=2.0, thermal=6.0),
        xids=(Xid(79, START), Xid(13, START)),
        ecc=Ecc(uncorrected=2),
        remapped_rows=RemappedRows(0, 1, True, False),
        links_up=(True, False, True),
    )
    found = why_slow(broken, CALM)
    assert found.causes == (*[Cause.FAULT] * 4, Cause.THERMAL, Cause.POWER_CAP)
    for words in ("XID 79", "waits to be remapped", "2 uncorrected", "Links 1 of 3"):
        assert words in found.text
    assert "XID 13" not in found.text  # a program's own mistake


def test_idle_is_told_only_where_nothing_else_is() -> None:
    """A capped GPU between two batches is both."""
    both = replace(CALM, events=EventReason.IDLE | EventReason.SW_POWER_CAP)
    assert why_slow(both).causes == (Cause.POWER_CAP,)


def test_no_cause_found_and_nothing_readable_are_not_the_same() -> None:
    """Not known is said, each with its reason."""
    blind = replace(CALM, events=GONE, violations_s=dict.fromkeys(Violation, GONE))
    found = why_slow(later(blind), blind)
    assert found.causes == ()
    assert len(found.unknown) == 2
    assert "No cause was read." in found.text
    assert "not_supported: Not Supported" in found.text


@pytest.mark.parametrize(
    "earlier",
    [
        replace(CALM, identity=replace(CALM.identity, uuid="GPU-2")),
        replace(CALM, observed_at=START + timedelta(seconds=99)),
        replace(CALM, violations_s=dict.fromkeys(Violation, 500.0)),
    ],
)
def test_readings_that_cannot_be_compared_are_not(earlier: GpuReading) -> None:
    """Another GPU, the wrong order, counters that began anew."""
    found = why_slow(later(CALM, power=9.0), earlier)
    assert found.causes == ()
    assert len(found.unknown) == 1


VALUE = st.one_of(st.just(GONE), st.floats(0, 1e4))


@settings(max_examples=200, deadline=None)
@given(
    bits=st.one_of(st.just(GONE), st.integers(0, 0xFFFF)),
    limits=st.lists(VALUE, min_size=6, max_size=6),
    watts=VALUE,
    counters=st.lists(VALUE, min_size=11, max_size=11),
    before=st.lists(VALUE, min_size=11, max_size=11),
)
def test_whatever_was_read_there_is_an_answer(
    bits: Unread | int,
    limits: list[float | Unread],
    watts: float | Unread,
    counters: list[float | Unread],
    before: list[float | Unread],
) -> None:
    """In words, with shares that are shares, and never a cause without its evidence."""
    now = replace(
        CALM,
        observed_at=START + timedelta(seconds=7),
        events=bits if isinstance(bits, Unread) else EventReason(bits),
        limits=PowerLimits(*limits),
        power_average_w=watts,
        violations_s=dict(zip(Violation, counters, strict=True)),
    )
    earlier = replace(CALM, violations_s=dict(zip(Violation, before, strict=True)))
    found = why_slow(now, earlier)
    assert found.text
    for finding in found.findings:
        assert finding.share is None or 0.0 <= finding.share <= 1.0
        assert "0x" in finding.says or "%" in finding.says
