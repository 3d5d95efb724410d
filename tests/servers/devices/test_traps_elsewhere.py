"""Where Redfish, AMD SMI and indexes mislead, one test for each; see `docs/traps.md`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interlock_plant import Plant
from interlock_servers.devices import amd_smi
from interlock_servers.devices.amd_smi import AmdSmiHost
from interlock_servers.devices.bmc import Answer, check_path
from interlock_servers.devices.models import (
    GpuIdentity,
    Outcome,
    Unread,
    Vendor,
    Why,
    known,
)
from interlock_servers.devices.redfish import RedfishHost
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.twin_amd_smi import AmdSmiTwin
from interlock_servers.devices.twin_redfish import RedfishTwin
from interlock_servers.devices.why_slow import Cause, why_slow
from interlock_tools.errors import UnavailableError
from tests.servers.devices.conftest import Opener, PlantClock, bmc_of
from tests.servers.devices.test_contract import let_pass

# ── Redfish ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bmc(twin: HostTwin, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A BMC that listens."""
    monkeypatch.setenv("TWIN_PASSWORD", "twin")
    with RedfishTwin(twin) as listening:
        yield listening


@pytest.mark.trap("DV-R01")
@pytest.mark.trap("DV-R04")
def test_gpus_are_found_by_walking_over_every_page(bmc: RedfishTwin, clock: PlantClock) -> None:
    """Not by the name that another generation has, and not only those of the first page."""
    with RedfishHost(clock, bmc_of(bmc)) as host:
        paths = [device.path.rpartition("/")[2] for device in host.devices()]
    assert paths == [f"GPU_SXM_{number}" for number in range(1, 9)]


@pytest.mark.trap("DV-R02")
def test_a_set_point_that_is_switched_off_is_no_limit(
    bmc: RedfishTwin, clock: PlantClock, twin: HostTwin
) -> None:
    """It is shown all the same, and a new one would not be followed either."""
    bmc.limits_off = True
    with RedfishHost(clock, bmc_of(bmc)) as host:
        device = host.devices()[0]
        limits = device.limits()
        outcome = device.set_power_limit(500.0)
    assert isinstance(limits.now_w, Unread)
    assert "switched off" in limits.now_w.detail
    assert outcome.outcome is Outcome.REFUSED
    assert "switched off" in outcome.why
    assert not bmc.patches
    assert not any(twin.commands)


@pytest.mark.trap("DV-R03")
def test_a_task_that_was_taken_is_no_limit_that_was_set(
    bmc: RedfishTwin, clock: PlantClock
) -> None:
    """Neither applied nor refused: it may still come."""
    bmc.takes_tasks = True
    with RedfishHost(clock, bmc_of(bmc)) as host:
        outcome = host.devices()[0].set_power_limit(500.0)
    assert outcome.outcome is Outcome.UNKNOWN
    assert "may still come" in outcome.why


@pytest.mark.trap("DV-R05")
@pytest.mark.parametrize("unknown", [None, [], {}, "N/A", True])
def test_what_a_bmc_does_not_know_is_no_zero(
    bmc: RedfishTwin, clock: PlantClock, unknown: object
) -> None:
    """Seen: an empty list where energy should be."""
    inner = bmc_of(bmc)

    class Forgetful:
        def get(self, path: str) -> Answer:
            answer = inner.get(path)
            for name in ("PowerWatts", "EnergyJoules", "EnergykWh", "TemperatureCelsius"):
                if name in answer.body:
                    answer.body[name] = unknown
            if "PowerLimitWatts" in answer.body:
                answer.body["PowerLimitWatts"]["AllowableMax"] = unknown
            return answer

        def patch(self, path: str, body: dict[str, Any], etag: str | None) -> Answer:
            return inner.patch(path, body, etag)

        def close(self) -> None:
            inner.close()

    with RedfishHost(clock, Forgetful()) as host:
        reading = host.devices()[0].read()
    for value in (reading.power_w, reading.energy_j, reading.temperature_c, reading.limits.max_w):
        assert isinstance(value, Unread)
        assert value.why is Why.NOT_SUPPORTED


@pytest.mark.trap("DV-R06")
def test_a_limit_that_another_changed_in_between_is_not_overwritten(
    bmc: RedfishTwin, clock: PlantClock, plant: Plant, twin: HostTwin
) -> None:
    """What we send is bound to what we read."""
    inner = bmc_of(bmc)

    class Race:
        def get(self, path: str) -> Answer:
            return inner.get(path)

        def patch(self, path: str, body: dict[str, Any], etag: str | None) -> Answer:
            other = {"PowerLimitWatts": {"SetPoint": 250}}
            bmc.respond(path, other, None)
            return inner.patch(path, body, etag)

        def close(self) -> None:
            inner.close()

    with RedfishHost(clock, Race()) as host:
        outcome = host.devices()[0].set_power_limit(500.0)
    assert "changed by another" in outcome.why
    assert not outcome.holds
    assert float(plant.gpu_cap_set_w[twin.gpus[0]]) == 250.0


@pytest.mark.trap("DV-R07")
@pytest.mark.parametrize(
    "path", ["https://evil.example.com/redfish/v1", "//evil.example.com/", "/redfish/v2/x", "x", ""]
)
def test_a_link_that_leads_elsewhere_is_not_followed(path: str) -> None:
    """Our login would go with it."""
    with pytest.raises(UnavailableError, match="leads out"):
        check_path(path)


# ── AMD SMI ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DV-A01")
def test_a_machine_without_rocm_says_so_and_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A server over stdio would speak garbage to its client."""
    package = tmp_path / "amdsmi"
    package.mkdir()
    (package / "__init__.py").write_text(
        "print('libamd_smi.so: cannot open shared object file')\n{}['libamd_smi.so']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    with pytest.raises(UnavailableError, match=r"ROCm is not on this machine \(libamd_smi.so"):
        amd_smi.load_library()
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(UnavailableError, match=r"install interlock-dsx\[amd\]"):
        amd_smi.load_library()


@pytest.mark.trap("DV-A02")
def test_watts_in_the_place_of_microwatts_are_not_guessed(
    twin: HostTwin, clock: PlantClock
) -> None:
    """A million times too much would be set."""

    class OnAHost(AmdSmiTwin):
        def amdsmi_get_power_cap_info(self, processor_handle: Any) -> dict[str, int]:
            micro = super().amdsmi_get_power_cap_info(processor_handle)
            return {name: value // 1_000_000 for name, value in micro.items()}

    device = AmdSmiHost(clock, OnAHost(twin)).devices()[0]
    limits = device.limits()
    assert isinstance(limits.max_w, Unread)
    assert limits.max_w.why is Why.IMPLAUSIBLE
    assert device.set_power_limit(500.0).outcome is Outcome.REFUSED
    assert not any(twin.commands)
    bare = AmdSmiHost(clock, AmdSmiTwin(twin)).devices()[0]
    assert known(bare.limits().max_w) == 700.0


@pytest.mark.trap("DV-A03")
@pytest.mark.parametrize("nothing", ["N/A", 0xFFFF, 0xFFFFFFFF, 2**64 - 1])
def test_what_amd_smi_has_not_is_no_number(
    twin: HostTwin, clock: PlantClock, nothing: object
) -> None:
    """65535 W is the greatest number of its width, not a draw."""

    class Less(AmdSmiTwin):
        def amdsmi_get_power_info(self, processor_handle: Any) -> dict[str, Any]:
            answer = super().amdsmi_get_power_info(processor_handle)
            return dict.fromkeys(answer, nothing)

    reading = AmdSmiHost(clock, Less(twin)).devices()[0].read()
    assert isinstance(reading.power_average_w, Unread)
    assert isinstance(reading.power_instant_w, Unread)
    assert isinstance(reading.power_w, Unread)


@pytest.mark.trap("DV-A04")
def test_counts_of_samples_are_not_taken_for_seconds(
    opened: Opener, twin: HostTwin, plant: Plant
) -> None:
    """What is active is told; for how long it was, is not known."""
    device = opened("amdsmi").devices()[0]
    device.set_power_limit(400.0)
    let_pass(plant, 5)
    earlier = device.read()
    let_pass(plant, 5)
    found = why_slow(device.read(), earlier)
    assert device.read().violations_s == {}
    assert found.causes == (Cause.POWER_CAP,)
    assert found.findings[0].share is None
    assert "no violation counters" in found.text
    twin.inject(GpuFault.NO_COUNTERS)
    assert isinstance(device.read().events, Unread)


# ── an agent ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DV-G03")
def test_a_gpu_is_known_by_what_lasts_and_not_by_its_index(opened: Opener) -> None:
    """After a restart with one GPU missing, index 3 is the one that was 4."""
    gone = Unread(Why.NOT_SUPPORTED)
    for way in ("nvml", "amdsmi", "redfish"):
        identity = opened(way).devices()[3].identity
        assert identity.key == identity.uuid
        assert replace(identity, index=2).key == identity.key
    bare = GpuIdentity(3, Vendor.UNKNOWN, gone, "165-1", gone, gone)
    assert bare.key == "165-1"
