"""The stand-ins against the libraries that they stand for, where those are installed.

What is missing here is found on a machine with GPUs otherwise, too late.
"""

import ast
import ctypes.util
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

from interlock_servers.devices import amd_smi, nvml_device
from interlock_servers.devices import nvml_names as nvml
from interlock_servers.devices.models import EventReason
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.profiles import NAMES
from interlock_servers.devices.recorded import CurrentProfiles as RecordedProfiles
from interlock_servers.devices.twin import HostTwin
from interlock_servers.devices.twin_amd_smi import AmdSmiTwin
from interlock_servers.devices.twin_nvml import CurrentProfiles, NvmlTwin
from interlock_tools.errors import UnavailableError
from tests.servers.devices.conftest import PlantClock


@pytest.fixture
def real() -> Any:
    """`nvidia-ml-py`; its functions need a driver, its names and structures do not."""
    return pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")


def arguments(function: Any) -> list[str]:
    """The names of what must be given to it, less `self`."""
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.default is inspect.Parameter.empty and p.name != "self"]


def test_every_function_that_we_call_is_in_the_library_with_the_same_arguments(real: Any) -> None:
    """By name, because that is how we call them; by number, because none is passed by name."""
    for name in sorted(nvml.READS | nvml.WRITES):
        wanted = arguments(getattr(real, name))
        if name == "nvmlDeviceGetTemperature":  # deprecated: the twin is of a library without it
            continue
        assert len(arguments(getattr(NvmlTwin, name))) == len(wanted), name


def test_every_number_is_that_of_the_library(real: Any) -> None:
    """Codes, fields, bits, sensors, members of the union, profiles."""
    assert (nvml.SUCCESS, nvml.NOT_SUPPORTED) == (real.NVML_SUCCESS, real.NVML_ERROR_NOT_SUPPORTED)
    for name in (
        "INVALID_ARGUMENT",
        "NO_PERMISSION",
        "DRIVER_NOT_LOADED",
        "TIMEOUT",
        "LIBRARY_NOT_FOUND",
        "FUNCTION_NOT_FOUND",
        "GPU_IS_LOST",
        "RESET_REQUIRED",
    ):
        assert getattr(nvml, name) == getattr(real, f"NVML_ERROR_{name}"), name
    for name in ("POWER_AVERAGE", "POWER_INSTANT", "POWER_REQUESTED_LIMIT"):
        assert getattr(nvml, name) == getattr(real, f"NVML_FI_DEV_{name}"), name
    assert real.NVML_FI_DEV_MEMORY_TEMP == nvml.MEMORY_TEMPERATURE
    fields = {
        "POWER": real.NVML_FI_DEV_PERF_POLICY_POWER,
        "THERMAL": real.NVML_FI_DEV_PERF_POLICY_THERMAL,
        "SYNC_BOOST": real.NVML_FI_DEV_PERF_POLICY_SYNC_BOOST,
        "BOARD_LIMIT": real.NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT,
        "LOW_UTILIZATION": real.NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION,
        "RELIABILITY": real.NVML_FI_DEV_PERF_POLICY_RELIABILITY,
        "BELOW_APPLICATION_CLOCKS": real.NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS,
        "BELOW_BASE_CLOCKS": real.NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS,
        "SW_THERMAL": real.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
        "HW_THERMAL": real.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
        "HW_POWER_BRAKE": real.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
    }
    assert {kind.name: number for number, kind in nvml.VIOLATION_FIELDS.items()} == fields
    bits = {
        EventReason.IDLE: "GpuIdle",
        EventReason.APPLICATION_CLOCKS: "ApplicationsClocksSetting",
        EventReason.SW_POWER_CAP: "SwPowerCap",
        EventReason.HW_SLOWDOWN: "HwSlowdown",
        EventReason.SYNC_BOOST: "SyncBoost",
        EventReason.SW_THERMAL: "SwThermalSlowdown",
        EventReason.HW_THERMAL: "HwThermalSlowdown",
        EventReason.HW_POWER_BRAKE: "HwPowerBrakeSlowdown",
        EventReason.DISPLAY: "DisplayClockSetting",
    }
    for bit, name in bits.items():
        assert bit.value == getattr(real, f"nvmlClocksEventReason{name}"), name
    assert sum(bits) == real.nvmlClocksEventReasonAll
    for kind, member in nvml.VALUE_MEMBERS.items():
        assert member in dict(real.c_nvmlValue_t._fields_), member
        assert kind in {
            value for name, value in vars(real).items() if name.startswith("NVML_VALUE_TYPE_")
        }
    assert real.nvmlEventTypeXidCriticalError == nvml.XID_EVENT
    assert real.NVML_NVLINK_MAX_LINKS == nvml.MAX_LINKS
    for number, name in enumerate(NAMES):
        assert getattr(real, f"NVML_POWER_PROFILE_{name}") == number, name


def test_structures_have_the_fields_of_the_library(real: Any) -> None:
    """What is filled, and what is read of answers."""
    wanted = [name for name, _ in getattr(real, nvml.CURRENT_PROFILES)._fields_]
    for ours in (CurrentProfiles, RecordedProfiles):
        assert [name for name, _ in ours._fields_] == wanted
    for name in ("fieldId", "valueType", "nvmlReturn", "value"):
        assert name in dict(real.c_nvmlFieldValue_t._fields_), name
    assert "busId" in dict(real.nvmlPciInfo_t._fields_)
    assert {"device", "eventType", "eventData"} <= set(dict(real.c_nvmlEventData_t._fields_))


def test_the_real_library_without_a_driver_says_so(real: Any, clock: PlantClock) -> None:
    """On a machine with a driver this opens it, and reads."""
    has_driver = ctypes.util.find_library("nvidia-ml") is not None
    if not has_driver:
        with pytest.raises(UnavailableError, match=r"libnvidia-ml\.so\.1"):
            NvmlHost(clock, real)
        return
    with NvmlHost(clock, real) as host:
        assert [device.read() for device in host.devices()] or not host.devices()


@pytest.mark.trap("DV-N11")
def test_the_real_wrapper_says_success_to_a_refusal(
    real: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown by the library itself: the driver says no permission, the wrapper says 0."""
    refuses = {
        f"nvmlDeviceSetPowerManagementLimit{version}": lambda *_: real.NVML_ERROR_NO_PERMISSION
        for version in ("", "_v2")
    }
    monkeypatch.setattr(real, "_nvmlGetFunctionPointer", refuses.__getitem__)
    handle = real.c_nvmlDevice_t()
    assert real.nvmlDeviceSetPowerManagementLimit_v2(handle, 0, 500_000) == real.NVML_SUCCESS
    with pytest.raises(real.NVMLError) as caught:
        real.nvmlDeviceSetPowerManagementLimit(handle, 500_000)
    assert caught.value.value == nvml.NO_PERMISSION


def test_our_reading_of_a_field_is_of_the_librarys_own_structure(
    real: Any, twin: HostTwin, clock: PlantClock
) -> None:
    """Real structures with real unions, as the driver would fill them."""

    class Real(NvmlTwin):
        def nvmlDeviceGetFieldValues(  # noqa: N802 (the library's name)
            self,
            handle: Any,
            fieldIds: Any,  # noqa: N803
        ) -> Any:
            array = (real.c_nvmlFieldValue_t * len(fieldIds))()
            for each, answer in zip(
                array, super().nvmlDeviceGetFieldValues(handle, fieldIds), strict=True
            ):
                each.fieldId, each.nvmlReturn = answer.fieldId, answer.nvmlReturn
                each.valueType = answer.valueType
                member = nvml.VALUE_MEMBERS[answer.valueType]
                setattr(each.value, member, getattr(answer.value, member))
            return array

    library = Real(twin)
    setattr(library, nvml.CURRENT_PROFILES, getattr(real, nvml.CURRENT_PROFILES))
    twin.profiles = ((0, 20), (1,))
    plain = NvmlHost(clock, NvmlTwin(twin)).devices()[0].read()
    assert NvmlHost(clock, library).devices()[0].read() == plain


def test_nothing_that_we_call_is_deprecated_without_another_way(real: Any) -> None:
    """The library marks what it will remove; we may use it only after its successor."""
    source = inspect.getsource(real).splitlines()
    deprecated = {
        source[number + 1].split("(")[0].removeprefix("def ")
        for number, line in enumerate(source[:-1])
        if "DEPRECATED" in line and source[number + 1].startswith("def ")
    }
    assert "nvmlDeviceGetViolationStatus" in deprecated
    assert deprecated & (nvml.READS | nvml.WRITES) <= {"nvmlDeviceGetTemperature"}
    used = inspect.getsource(nvml_device)
    assert used.index("nvmlDeviceGetTemperatureV") < used.index('"nvmlDeviceGetTemperature"')


@pytest.fixture
def real_amd() -> dict[str, Any]:
    """Functions of `amdsmi` with their arguments and numbers, from source: it needs ROCm to load.

    Keys are names; functions have the list of what must be given, numbers themselves.
    """
    found = importlib.util.find_spec("amdsmi")
    if found is None or found.origin is None:
        pytest.skip("amdsmi is not installed")
    folder = Path(found.origin).parent
    names: dict[str, Any] = {}
    for file in ("amdsmi_interface.py", "amdsmi_wrapper.py", "amdsmi_exception.py"):
        for node in ast.parse((folder / file).read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                given = [argument.arg for argument in node.args.args]
                names[node.name] = given[: len(given) - len(node.args.defaults)]
            elif isinstance(node, ast.ClassDef):
                names[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        names.setdefault(target.id, node.value.value)
    return names


def test_every_function_of_amd_smi_is_in_the_library(real_amd: dict[str, Any]) -> None:
    """With the same arguments in the same order."""
    for name in sorted(amd_smi.READS | amd_smi.WRITES):
        assert name in real_amd, name
        assert arguments(getattr(AmdSmiTwin, name)) == real_amd[name], name


def test_every_number_of_amd_smi_is_that_of_the_library(real_amd: dict[str, Any]) -> None:
    """Places of temperature and codes of errors."""
    for kind in AmdSmiTwin.AmdSmiTemperatureType:
        assert real_amd[f"AMDSMI_TEMPERATURE_TYPE_{kind.name}"] == kind.value
    assert real_amd["AMDSMI_TEMP_CURRENT"] == AmdSmiTwin.AmdSmiTemperatureMetric.CURRENT
    codes = {"NOT_SUPPORTED": 2, "NO_PERM": 10, "NOT_FOUND": 31, "NO_DATA": 40, "INVAL": 1}
    for name, code in codes.items():
        assert real_amd[f"AMDSMI_STATUS_{name}"] == code
    assert real_amd["AmdSmiLibraryException"] == ["AmdSmiException"]
