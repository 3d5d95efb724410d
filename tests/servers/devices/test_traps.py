"""Where NVML misleads, one test for each; see `docs/traps.md`."""

import ast
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interlock_plant import Plant
from interlock_servers import devices
from interlock_servers.devices import amd_smi, nvml_names
from interlock_servers.devices.belief import disagreement
from interlock_servers.devices.models import (
    EventReason,
    Outcome,
    Unread,
    Violation,
    Why,
    WorkloadProfiles,
    known,
)
from interlock_servers.devices.nvml import NvmlHost, load_library
from interlock_servers.devices.profiles import NAMES, of_redfish_mask, of_words, to_redfish
from interlock_servers.devices.settings import AgentSettings
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_servers.devices.why_slow import Cause, why_slow
from interlock_tools.errors import UnavailableError
from tests.servers.devices.conftest import Opener, PlantClock
from tests.servers.devices.test_contract import let_pass

SOURCES = sorted(Path(devices.__file__).parent.glob("*.py"))


@pytest.fixture
def library(twin: HostTwin) -> NvmlTwin:
    """What `import pynvml` would give."""
    return NvmlTwin(twin)


@pytest.fixture
def nvidia(library: NvmlTwin, clock: PlantClock) -> NvmlHost:
    """The host over it."""
    return NvmlHost(clock, library)


@pytest.mark.trap("DV-N01")
def test_milliwatts_millijoules_and_nanoseconds_end_at_the_library(
    nvidia: NvmlHost, library: NvmlTwin, plant: Plant
) -> None:
    """A thousand times too much, or too little, would still look like a number."""
    device = nvidia.devices()[0]
    device.set_power_limit(450.0)
    let_pass(plant, 20)
    reading = device.read()
    handle = library.nvmlDeviceGetHandleByIndex(0)
    assert library.nvmlDeviceGetPowerManagementLimit(handle) == 450_000
    assert known(reading.limits.now_w) == 450.0
    assert known(reading.power_w) == pytest.approx(library.nvmlDeviceGetPowerUsage(handle) / 1000)
    milli_j = library.nvmlDeviceGetTotalEnergyConsumption(handle)
    assert known(reading.energy_j) == pytest.approx(milli_j / 1000)
    assert known(reading.violations_s[Violation.POWER]) == 20.0


@pytest.mark.trap("DV-N02")
def test_a_field_that_is_not_supported_is_no_zero(
    nvidia: NvmlHost, library: NvmlTwin, twin: HostTwin
) -> None:
    """The call succeeds, the value is 0, and only the field's own code says that it is none."""
    twin.inject(GpuFault.NO_COUNTERS)
    handle = library.nvmlDeviceGetHandleByIndex(0)
    (average,) = library.nvmlDeviceGetFieldValues(handle, [nvml_names.POWER_AVERAGE])
    assert (average.nvmlReturn, average.value.dVal) == (nvml_names.NOT_SUPPORTED, 0.0)
    reading = nvidia.devices()[0].read()
    assert isinstance(reading.power_average_w, Unread)
    assert reading.power_average_w.why is Why.NOT_SUPPORTED
    assert all(isinstance(each, Unread) for each in reading.violations_s.values())
    assert known(reading.power_w) is not None  # by the older call


@pytest.mark.trap("DV-N03")
def test_a_value_is_read_by_its_type_and_an_unknown_type_is_not_guessed(
    twin: HostTwin, clock: PlantClock
) -> None:
    """Another member of the union holds some of the same bits."""

    class Newer(NvmlTwin):
        def nvmlDeviceGetFieldValues(  # noqa: N802 (the library's name)
            self,
            handle: Any,
            fieldIds: Any,  # noqa: N803
        ) -> list[Any]:
            answers = super().nvmlDeviceGetFieldValues(handle, fieldIds)
            answers[0].valueType = 99
            return answers

    reading = NvmlHost(clock, Newer(twin)).devices()[0].read()
    assert isinstance(reading.power_average_w, Unread)
    assert reading.power_average_w.why is Why.IMPLAUSIBLE
    assert known(reading.power_instant_w) is not None
    assert known(reading.violations_s[Violation.POWER]) == 0.0


@pytest.mark.trap("DV-N04")
def test_violations_are_fields_and_the_deprecated_call_is_not_used() -> None:
    """It is gone with CUDA 14, and so would be our reading of it."""
    assert "nvmlDeviceGetViolationStatus" not in nvml_names.READS
    assert not hasattr(NvmlTwin, "nvmlDeviceGetViolationStatus")
    assert set(nvml_names.VIOLATION_FIELDS.values()) == set(Violation)


@pytest.mark.trap("DV-N05")
def test_only_the_difference_of_a_counter_counts_and_one_that_began_anew_counts_nothing(
    nvidia: NvmlHost, plant: Plant
) -> None:
    """A GPU that was capped all of last week is not capped for that."""
    device = nvidia.devices()[0]
    device.set_power_limit(450.0)
    let_pass(plant, 50)
    device.set_power_limit(700.0)
    let_pass(plant, 10)
    earlier = device.read()
    let_pass(plant, 20)
    now = device.read()
    assert (known(now.violations_s[Violation.POWER]) or 0.0) >= 50.0
    assert why_slow(now, earlier).causes == ()
    anew = replace(now, violations_s={**now.violations_s, Violation.POWER: 0.0})
    assert "began anew" in why_slow(anew, earlier).text


@pytest.mark.trap("DV-N06")
def test_a_counter_under_two_names_is_counted_once() -> None:
    """74 is also CLOCKS_EVENT_REASON_SW_POWER_CAP, 76 also _SYNC_BOOST."""
    fields = list(nvml_names.VIOLATION_FIELDS)
    assert len(set(fields)) == len(fields)
    assert fields.count(74) == fields.count(76) == 1


@pytest.mark.trap("DV-N07")
@pytest.mark.parametrize(
    ("bits", "cause"),
    [
        (0x8 | 0x40, Cause.THERMAL),
        (0x8 | 0x80, Cause.POWER_BRAKE),
        (0x8, Cause.HARDWARE_SLOWDOWN),
        (0x20, Cause.THERMAL),
    ],
)
def test_heat_and_the_power_brake_are_told_apart(nvidia: NvmlHost, bits: int, cause: Cause) -> None:
    """A brake is a matter of the feed, heat one of coolant; other people come for each."""
    reading = replace(nvidia.devices()[0].read(), events=EventReason(bits))
    assert why_slow(reading).causes == (cause,)


@pytest.mark.trap("DV-N08")
def test_the_limit_in_force_may_be_another_than_the_one_set(
    nvidia: NvmlHost, twin: HostTwin, plant: Plant
) -> None:
    """Out of band somebody caps to 300 W what we have set to 500 W; both are shown."""
    device = nvidia.devices()[0]
    device.set_power_limit(500.0)
    twin.cap_by_bmc(0, 300.0)
    let_pass(plant, 5)
    reading = device.read()
    assert (known(reading.limits.now_w), known(reading.limits.enforced_w)) == (500.0, 300.0)
    assert reading.limits.is_held_lower_by_another
    assert why_slow(reading).causes == (Cause.POWER_CAP_BY_ANOTHER,)
    assert "300 W set by another" in why_slow(reading).text


@pytest.mark.trap("DV-N09")
def test_a_nodes_total_is_no_limit_of_a_gpu(nvidia: NvmlHost, twin: HostTwin) -> None:
    """5600 W is 700 W for each of eight; it is refused here, before the library sees it."""
    outcome = nvidia.devices()[0].set_power_limit(5600.0)
    assert outcome.outcome is Outcome.REFUSED
    assert "200 to 700 W" in outcome.why
    assert not any(twin.commands)


@pytest.mark.trap("DV-N11")
def test_the_call_whose_answer_is_dropped_is_not_used_and_every_limit_is_read_back(
    nvidia: NvmlHost, library: NvmlTwin, twin: HostTwin
) -> None:
    """It says success when the driver said no."""
    twin.inject(GpuFault.REFUSES, [0])
    handle = library.nvmlDeviceGetHandleByIndex(0)
    assert library.nvmlDeviceSetPowerManagementLimit_v2(handle, 0, 500_000) == nvml_names.SUCCESS
    assert library.dropped == [nvml_names.NOT_SUPPORTED]
    assert {"nvmlDeviceSetPowerManagementLimit"} == nvml_names.WRITES
    assert nvidia.devices()[0].set_power_limit(500.0).outcome is Outcome.REFUSED
    twin.repair(GpuFault.REFUSES)
    twin.inject(GpuFault.IGNORES, [0])
    assert nvidia.devices()[0].set_power_limit(500.0).outcome is Outcome.IGNORED


@pytest.mark.trap("DV-N12")
def test_without_root_everything_is_read_and_nothing_is_set(
    nvidia: NvmlHost, twin: HostTwin
) -> None:
    """And the refusal says why."""
    twin.inject(GpuFault.NO_PERMISSION)
    device = nvidia.devices()[0]
    assert known(device.read().power_w) is not None
    outcome = device.set_power_limit(500.0)
    assert outcome.outcome is Outcome.REFUSED
    assert "Insufficient Permissions" in outcome.why


@pytest.mark.trap("DV-N13")
def test_one_agent_has_one_way_to_its_gpus(tmp_path: Path) -> None:
    """In band or by the BMC, never both from here."""
    given = {"node_id": "n", "reader_token_file": tmp_path / "token"}
    bmc = {"url": "https://bmc.example.com"}
    with pytest.raises(ValueError, match="belongs to way"):
        AgentSettings.model_validate({**given, "way": "nvml", "bmc": bmc})
    with pytest.raises(ValueError, match="belongs to way"):
        AgentSettings.model_validate({**given, "way": "redfish"})
    with pytest.raises(ValueError, match="way"):
        AgentSettings.model_validate({**given, "way": ["nvml", "redfish"], "bmc": bmc})


@pytest.mark.trap("DV-N14")
def test_an_energy_counter_that_begins_anew_is_no_lie(nvidia: NvmlHost, plant: Plant) -> None:
    """It counts since the driver was loaded."""
    let_pass(plant, 10)
    was = nvidia.devices()[0].read()
    let_pass(plant, 2)
    now = nvidia.devices()[0].read()
    assert disagreement(now, was) is None
    assert disagreement(replace(now, energy_j=1.0), was) is None
    assert disagreement(replace(now, energy_j=(known(was.energy_j) or 0) + 9e6), was) is not None


@pytest.mark.trap("DV-N15")
def test_nothing_here_calls_a_write_but_that_of_the_power_limit() -> None:
    """Not even by name: no clocks, no modes, no MIG, no profiles, no resets."""
    allowed = nvml_names.READS | nvml_names.WRITES | amd_smi.READS | amd_smi.WRITES
    called = set()
    for source in SOURCES:
        if source.name.startswith("twin"):
            continue  # the stand-in has the traps of the library in it
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value
            if name is None or " " in name or not name.startswith(("nvml", "amdsmi_")):
                continue
            called.add(name)
    known_names = {"nvml", "nvml_names", "nvmlReturn", "amdsmi_"}
    assert called - known_names <= allowed, called - known_names - allowed
    changes = ("Set", "Reset", "Clear", "Update", "Activate", "Create", "Free", "Enable")
    writes = {name for name in allowed if any(word in name for word in changes)}
    assert {n for n in writes if "EventSet" not in n} == {"nvmlDeviceSetPowerManagementLimit"}
    assert {name for name in allowed if "_set_" in name} == {"amdsmi_set_power_cap"}


@pytest.mark.trap("DV-N16")
def test_profiles_in_force_are_told_beside_those_asked_for(
    nvidia: NvmlHost, twin: HostTwin
) -> None:
    """They conflict, and the driver chooses: 0 is MAX_P, 1 is MAX_Q, 20 is TRAINING."""
    twin.profiles = ((0, 20), (1,))
    reading = nvidia.devices()[0].read()
    assert reading.profiles == WorkloadProfiles(frozenset({0, 20}), frozenset({1}))
    found = why_slow(reading)
    assert Cause.POWER_PROFILE in found.causes
    assert "MAX_Q is in force, and MAX_P, TRAINING was asked for" in found.text
    twin.profiles = (None, None)
    assert isinstance(nvidia.devices()[0].read().profiles, Unread)


@pytest.mark.trap("DV-N17")
def test_a_bmc_numbers_profiles_three_higher(opened: Opener, twin: HostTwin) -> None:
    """One place converts; MAX_Q must not become LLM_INFERENCE's neighbour."""
    twin.profiles = ((0, 20), (1,))
    by_bmc = opened("redfish").devices()[0].read().profiles
    assert by_bmc == opened("nvml").devices()[0].read().profiles
    assert [to_redfish(profile) for profile in (0, 1, 24)] == [3, 4, 27]
    assert of_redfish_mask(hex(1 << to_redfish(7))) == {7}
    for wrong in ("0x1", "0x4", "none", "-8"):
        with pytest.raises(ValueError, match=r"invalid literal|bit below"):
            of_redfish_mask(wrong)


@pytest.mark.trap("DV-N18")
def test_a_mask_of_profiles_is_words_of_32_bits() -> None:
    """Bit 0 of the second word is profile 32."""
    assert of_words([0b11, 1, 0, 0, 0, 0, 0, 1 << 30]) == {0, 1, 32, 254}
    assert len(NAMES) == 25


@pytest.mark.trap("DV-N19")
def test_a_machine_without_a_driver_says_which_part_is_missing(
    clock: PlantClock, twin: HostTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package imports everywhere; only opening the driver tells."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UnavailableError, match=r"install interlock-dsx\[nvidia\]"):
        load_library()

    class NoDriver(NvmlTwin):
        code = 0

        def nvmlInit(self) -> None:  # noqa: N802 (the library's name)
            raise self.NVMLError(self.code)

    library = NoDriver(twin)
    for code, says in ((12, "libnvidia-ml.so.1"), (9, "not loaded"), (4, "no permission")):
        library.code = code
        with pytest.raises(UnavailableError, match=says):
            NvmlHost(clock, library)


@pytest.mark.trap("DV-N20")
def test_the_last_event_of_a_gpu_that_is_gone_is_kept_for_it(
    nvidia: NvmlHost, twin: HostTwin
) -> None:
    """XID 79 is the one that says it fell off, and by then it can no longer be asked."""
    twin.raise_xid(5, 79)
    twin.inject(GpuFault.LOST, [5])
    readings = [device.read() for device in nvidia.devices()]
    told = [known(reading.xids) for reading in readings]
    assert [[xid.code for xid in each or ()] for each in told] == [[]] * 5 + [[79]] + [[]] * 2
    assert why_slow(readings[5]).causes[0] is Cause.FAULT
    assert "fell off the bus" in why_slow(readings[5]).text
