"""Answers of a machine in a file: read again by the same code, without what nobody should see."""

import json
from pathlib import Path
from typing import Any

import pytest

from interlock_plant import Plant
from interlock_servers.devices.amd_smi import AmdSmiHost
from interlock_servers.devices.device import GpuHost
from interlock_servers.devices.models import Outcome, Unread, known
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.recorded import (
    BmcRecorder,
    LibraryRecorder,
    Way,
    load,
    open_recorded,
    record,
    redacted,
    save,
)
from interlock_servers.devices.redfish import RedfishHost
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.twin_amd_smi import AmdSmiTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_servers.devices.twin_redfish import LOGIN, RedfishTwin
from interlock_tools.errors import InvalidRequestError
from tests.servers.devices.conftest import START, WAYS, PlantClock, bmc_of
from tests.servers.devices.test_contract import let_pass

Document = dict[str, Any]


@pytest.fixture(params=WAYS)
def machine(
    request: pytest.FixtureRequest,
    twin: HostTwin,
    clock: PlantClock,
    plant: Plant,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """By each way: the machine after a while with a lost GPU, and a recording of it."""
    monkeypatch.setenv("TWIN_PASSWORD", LOGIN[1])
    way = Way(request.param)
    twin.profiles = ((0,), (1,))
    twin.add_ecc(1, corrected=2)
    twin.inject(GpuFault.NO_COUNTERS, [3])
    let_pass(plant, 12)
    with RedfishTwin(twin) as bmc:

        def opened(recorder: Any = None) -> GpuHost:
            match way:
                case Way.NVML:
                    return NvmlHost(clock, recorder or NvmlTwin(twin))
                case Way.AMD_SMI:
                    return AmdSmiHost(clock, recorder or AmdSmiTwin(twin))
                case _:
                    return RedfishHost(clock, recorder or bmc_of(bmc))

        recorder: Any
        match way:
            case Way.NVML:
                recorder = LibraryRecorder(NvmlTwin(twin), way)
            case Way.AMD_SMI:
                recorder = LibraryRecorder(AmdSmiTwin(twin), way)
            case _:
                recorder = BmcRecorder(bmc_of(bmc))
        with opened(recorder) as host, opened() as plain:
            document = record(host, recorder.calls, way, START)
            yield plain, document


def test_a_recording_is_read_as_the_machine_was(
    machine: tuple[GpuHost, Document], clock: PlantClock, tmp_path: Path
) -> None:
    """Every value and every reason, after a way through a file."""
    host, document = machine
    file = tmp_path / "machine.json"
    save(document, file)
    with open_recorded(load(file), clock) as again:
        assert [d.identity for d in again.devices()] == [d.identity for d in host.devices()]
        assert [d.read() for d in again.devices()] == [d.read() for d in host.devices()]
        assert [d.read() for d in again.devices()] == [d.read() for d in host.devices()]
        assert START.isoformat() in again.says


def test_a_recording_takes_no_limit(
    machine: tuple[GpuHost, Document], clock: PlantClock, twin: HostTwin
) -> None:
    """And a recorder passes none on."""
    _, document = machine
    with open_recorded(document, clock) as again:
        outcome = again.devices()[0].set_power_limit(500.0)
    assert outcome.outcome is Outcome.REFUSED
    assert "takes no limit" in outcome.why
    assert not any(twin.commands)


def test_no_recorder_passes_a_write_on(twin: HostTwin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even of something that is no limit."""
    for library, way, name in (
        (NvmlTwin(twin), Way.NVML, "nvmlDeviceSetPowerManagementLimit"),
        (NvmlTwin(twin), Way.NVML, "nvmlDeviceSetPowerManagementLimit_v2"),
        (AmdSmiTwin(twin), Way.AMD_SMI, "amdsmi_set_power_cap"),
    ):
        with pytest.raises(InvalidRequestError, match="is not recorded"):
            getattr(LibraryRecorder(library, way), name)
    monkeypatch.setenv("TWIN_PASSWORD", LOGIN[1])
    with RedfishTwin(twin) as bmc:
        recorder = BmcRecorder(bmc_of(bmc))
        with pytest.raises(InvalidRequestError, match="not changed"):
            recorder.patch("/redfish/v1/x", {}, None)
        recorder.close()
    assert not bmc.patches


def test_no_serial_number_and_no_uuid_is_left_after_redaction(
    machine: tuple[GpuHost, Document], clock: PlantClock
) -> None:
    """And everything else is read as before; equal ones stay equal."""
    host, document = machine
    secrets = {
        value
        for device in host.devices()
        for value in (device.identity.uuid, device.identity.serial)
        if isinstance(value, str)
    }
    assert len(secrets) >= 8
    clean = redacted(document)
    text = json.dumps(clean)
    assert not [secret for secret in secrets if secret in text]
    assert any(secret in json.dumps(document) for secret in secrets)
    with open_recorded(clean, clock) as again:
        devices = again.devices()
        assert len({device.identity.key for device in devices}) == 8
        for device, was in zip(devices, host.devices(), strict=True):
            assert device.read().power_w == was.read().power_w
            assert device.identity.model == was.identity.model


def test_what_was_not_asked_then_is_not_supported_now(
    machine: tuple[GpuHost, Document], clock: PlantClock
) -> None:
    """A recording of an older Interlock lacks what a newer one reads: not a zero, not a crash."""
    _, document = machine
    words = ("FieldValues", "power_info", "EnvironmentMetrics")
    fewer = [
        entry
        for entry in document["calls"]
        if not any(word in entry["call"] + json.dumps(entry["with"]) for word in words)
    ]
    with open_recorded({**document, "calls": fewer}, clock) as again:
        reading = again.devices()[0].read()
    assert isinstance(reading.power_average_w, Unread)
    assert known(reading.identity.model) is not None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "interlock.gpu-record/1"}']
)
def test_a_file_that_is_no_recording_is_named(text: str, tmp_path: Path) -> None:
    """With the file, and what is wrong with it."""
    file = tmp_path / "some.json"
    file.write_text(text)
    with pytest.raises(InvalidRequestError, match=r"some\.json"):
        load(file)


def test_a_recording_never_replaces_another_file(
    machine: tuple[GpuHost, Document], tmp_path: Path
) -> None:
    """Test data that somebody relies on."""
    file = tmp_path / "some.json"
    file.write_text("mine")
    with pytest.raises(InvalidRequestError, match="is there already"):
        save(machine[1], file)
    assert file.read_text() == "mine"
