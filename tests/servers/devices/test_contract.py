"""What every GPU promises, whatever stands between: NVML, AMD SMI, a BMC, or the real machine."""

import pytest

from interlock_plant import Plant
from interlock_servers.devices.device import GpuHost
from interlock_servers.devices.models import (
    EventReason,
    Outcome,
    RemappedRows,
    Unread,
    Why,
    known,
)
from interlock_servers.devices.twin import GpuFault, HostTwin
from tests.servers.devices.conftest import Opener


def let_pass(plant: Plant, seconds: int) -> None:
    """Advance the plant."""
    for _ in range(seconds):
        plant.step()


# ── what every deployment promises: reads only ────────────────────────────────────────────────


def test_gpus_are_told_apart_by_what_lasts(any_host: GpuHost) -> None:
    """A cap is bound to the key: two GPUs with one key would be capped as one."""
    devices = any_host.devices()
    assert devices
    assert [device.identity.index for device in devices] == list(range(len(devices)))
    keys = {device.identity.key for device in devices}
    assert len(keys) == len(devices)
    assert not any(key.startswith("index-") for key in keys)


def test_every_value_is_a_number_in_its_range_or_says_why_it_is_none(any_host: GpuHost) -> None:
    """Never a zero in the place of what was not read."""
    for device in any_host.devices():
        reading = device.read()
        limits = reading.limits
        least_w, now_w, most_w = (known(w) for w in (limits.min_w, limits.now_w, limits.max_w))
        assert least_w is not None
        assert now_w is not None
        assert most_w is not None
        assert 0 < least_w <= now_w <= most_w
        drawn_w = known(reading.power_w)
        assert drawn_w is not None
        assert 0 <= drawn_w <= 1.6 * most_w
        for name, unread in reading.unread().items():
            assert unread.why in Why, name
            assert unread.detail or unread.why is Why.NOT_ASKED, name


def test_energy_never_runs_backwards(any_host: GpuHost) -> None:
    """Between two looks at the same driver."""
    for device in any_host.devices():
        first, second = device.read().energy_j, device.read().energy_j
        if isinstance(first, Unread) or isinstance(second, Unread):
            assert isinstance(first, Unread) == isinstance(second, Unread)
        else:
            assert second >= first > 0 or first == 0


# ── reads, against the plant behind the twins ─────────────────────────────────────────────────


def test_watts_joules_and_degrees_are_those_of_the_plant(
    host: GpuHost, twin: HostTwin, plant: Plant
) -> None:
    """Milliwatts, microwatts, counts and kilowatt hours end here."""
    let_pass(plant, 30)
    for device, gpu in zip(host.devices(), twin.gpus, strict=True):
        reading = device.read()
        assert known(reading.power_w) == pytest.approx(plant.gpu_power_w[gpu], abs=0.6)
        assert known(reading.energy_j) == pytest.approx(plant.gpu_energy_j[gpu], rel=1e-4)
        assert known(reading.temperature_c) == pytest.approx(plant.gpu_core_c[gpu], abs=0.6)
        assert known(reading.limits.now_w) == 700.0
        assert known(reading.limits.min_w) == 200.0
        assert reading.observed_at.utcoffset() is not None


def test_a_cap_that_holds_shows_as_such(host: GpuHost, plant: Plant) -> None:
    """The same bit whoever tells it."""
    device = host.devices()[0]
    assert not known(device.read().events)
    assert device.set_power_limit(400.0).holds
    let_pass(plant, 5)
    assert known(device.read().events) == EventReason.SW_POWER_CAP


def test_a_gpu_that_is_gone_has_no_values_and_the_others_have_theirs(
    host: GpuHost, twin: HostTwin
) -> None:
    """Lost is not zero watts, and not the end of the node."""
    twin.inject(GpuFault.LOST, [2])
    gone, other = host.devices()[2].read(), host.devices()[3].read()
    assert isinstance(gone.power_w, Unread)
    assert gone.power_w.why is Why.LOST
    assert isinstance(gone.limits.now_w, Unread)
    assert known(other.power_w) is not None


def test_health_is_read_where_the_way_has_it(opened: Opener, twin: HostTwin) -> None:
    """NVML tells all of it, AMD SMI what it has, a BMC none; and each says so."""
    twin.add_ecc(0, corrected=3, uncorrected=1)
    twin.inject(GpuFault.LINK_DOWN, [0])
    twin.inject(GpuFault.ROW_REMAP_FAILED, [0])
    nvidia = opened("nvml").devices()[0].read()
    amd = opened("amdsmi").devices()[0].read()
    bmc = opened("redfish").devices()[0].read()
    assert (nvidia.ecc.corrected, nvidia.ecc.uncorrected, nvidia.ecc.is_on) == (3, 1, True)
    assert nvidia.remapped_rows == RemappedRows(0, 0, False, True)
    assert not isinstance(nvidia.links_up, Unread)
    assert [link for link, is_up in enumerate(nvidia.links_up) if not is_up] == [3]
    assert (amd.ecc.corrected, amd.ecc.uncorrected) == (3, 1)
    assert not isinstance(amd.links_up, Unread)
    assert amd.links_up.count(False) == 1
    assert isinstance(amd.mig, Unread)
    assert isinstance(bmc.ecc.corrected, Unread)
    assert isinstance(bmc.links_up, Unread)


# ── the one write ─────────────────────────────────────────────────────────────────────────────


def test_a_limit_is_set_in_watts_of_one_gpu_and_read_back(
    host: GpuHost, twin: HostTwin, plant: Plant
) -> None:
    """The others keep what they have."""
    outcome = host.devices()[1].set_power_limit(450.0)
    assert (outcome.outcome, outcome.before_w, outcome.after_w) == (Outcome.APPLIED, 700.0, 450.0)
    shown = [float(plant.gpu_cap_set_w[gpu]) for gpu in twin.gpus]
    assert shown == [700.0, 450.0, *[700.0] * 6]
    assert twin.commands == [0, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("limit_w", [0.0, -1.0, 199.0, 701.0, 5600.0, float("nan"), float("inf")])
def test_what_is_not_in_its_range_is_never_sent(
    host: GpuHost, twin: HostTwin, limit_w: float
) -> None:
    """5600 W is a node's total: eight times 700."""
    outcome = host.devices()[0].set_power_limit(limit_w)
    assert outcome.outcome is Outcome.REFUSED
    assert not any(twin.commands)


@pytest.mark.parametrize(
    ("fault", "expected", "after_w"),
    [
        (GpuFault.REFUSES, Outcome.REFUSED, 700.0),
        (GpuFault.NO_PERMISSION, Outcome.REFUSED, 700.0),
        (GpuFault.IGNORES, Outcome.IGNORED, 700.0),
        (GpuFault.CLAMPS, Outcome.CLAMPED, 450.0),
        (GpuFault.REVERTS, Outcome.REVERTED, 700.0),
        (GpuFault.LIES_ABOUT_LIMIT, Outcome.APPLIED, 500.0),
    ],
)
def test_what_became_of_a_limit_has_a_name(
    host: GpuHost,
    twin: HostTwin,
    plant: Plant,
    fault: GpuFault,
    expected: Outcome,
    after_w: float,
) -> None:
    """By what the device says afterwards; that it lies is for a meter to say, not for it."""
    twin.inject(fault)
    outcome = host.devices()[0].set_power_limit(500.0, wait=lambda: let_pass(plant, 6))
    assert outcome.outcome is expected
    assert outcome.after_w == after_w
    assert outcome.holds == (expected is Outcome.APPLIED)
    assert twin.commands[0] <= 1


def test_a_device_that_does_not_tell_its_range_is_not_set(host: GpuHost, twin: HostTwin) -> None:
    """What would be refused or clamped is not known."""
    twin.inject(GpuFault.NO_RANGE)
    outcome = host.devices()[0].set_power_limit(500.0)
    assert outcome.outcome is Outcome.REFUSED
    assert "range is not known" in outcome.why
    assert not any(twin.commands)


def test_a_gpu_that_is_lost_while_it_is_set_leaves_its_state_unknown(
    host: GpuHost, twin: HostTwin
) -> None:
    """Not applied, and not refused either."""
    twin.inject(GpuFault.LOST_ONCE_SET, [0])
    outcome = host.devices()[0].set_power_limit(500.0)
    assert outcome.outcome is Outcome.UNKNOWN
    assert outcome.after_w is None
