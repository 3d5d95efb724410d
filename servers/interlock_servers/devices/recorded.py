"""Real answers of a machine in a file, and a library or BMC that gives them again.

What is kept are the calls below our own reading of them, so that the code that reads a recording is
the code that reads the machine. Only reads are recorded; a recording takes no limit.
"""

import ctypes
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

from interlock_servers.devices import amd_smi, nvml_names
from interlock_servers.devices.bmc import Answer, Bmc
from interlock_servers.devices.device import GpuHost
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, UnavailableError

FORMAT: Final = "interlock.gpu-record/1"
MAX_FILE_BYTES = 16_777_216

# Answers that stand for a device or a set of events, and mean nothing elsewhere.
_HANDLES: Final = frozenset(
    {"nvmlDeviceGetHandleByIndex", "nvmlEventSetCreate", "amdsmi_get_processor_handles"}
)
_SECRET_CALLS: Final = frozenset(
    {"nvmlDeviceGetSerial", "nvmlDeviceGetUUID", "amdsmi_get_gpu_device_uuid"}
)
_SECRET_KEYS: Final = ("serial", "uuid", "fru_id", "partnumber", "assettag")
_UNKNOWN_TEXT: Final = frozenset({"", "N/A"})


_OUT: Final[type[Any]] = type(ctypes.byref(ctypes.c_int()))  # a structure to be filled


class Way(StrEnum):
    """How a machine was asked."""

    NVML = "nvml"
    AMD_SMI = "amdsmi"
    REDFISH = "redfish"


class LibraryRecorder:
    """A library that notes what it is asked and what it answers. It passes on reads only."""

    def __init__(self, library: Any, way: Way) -> None:
        self._library = library
        self._reads = nvml_names.READS if way is Way.NVML else amd_smi.READS
        self._error = library.NVMLError if way is Way.NVML else library.AmdSmiException
        self._handles: list[Any] = []
        self.calls: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._library, name)
        if not name.startswith(("nvml", "amdsmi_")):
            return value  # classes of errors and enumerations
        if name not in self._reads:
            raise InvalidRequestError(f"{name} is not recorded: it is no read that we use")
        return self._noting(name, value)

    def _noting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            outs = _outs(arguments)
            entry: dict[str, Any] = {"call": name, "with": [self._plain(a) for a in arguments]}
            self.calls.append(entry)
            try:
                answer = call(*arguments)
            except self._error as error:
                code = getattr(error, "value", getattr(error, "err_code", None))
                entry["raises"] = {"code": code, "says": " ".join(str(error).split())}
                raise
            if name in _HANDLES:
                self._handles += answer if isinstance(answer, list) else [answer]
            entry["gives"] = self._plain(answer)
            if outs:  # what the call wrote into the structures that it was given
                entry["fills"] = [self._plain(out) for out in outs]
            return answer

        return ask

    def _plain(self, value: Any) -> Any:
        """As JSON; a handle by the order in which it came, a structure by its fields."""
        for number, handle in enumerate(self._handles):
            if handle is value:
                return {"handle": number}
        if type(value) is _OUT:
            return {"out": True}
        if isinstance(value, bool | None | str):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, bytes):
            return {"bytes": value.decode("latin-1")}
        if isinstance(value, Mapping):
            return {str(key): self._plain(each) for key, each in value.items()}
        if isinstance(value, ctypes.Structure | ctypes.Union):
            names = [field[0] for field in value._fields_]
            return {"fields": {name: self._plain(getattr(value, name)) for name in names}}
        if isinstance(value, SimpleNamespace):
            return {"fields": {name: self._plain(each) for name, each in vars(value).items()}}
        if isinstance(value, Iterable | ctypes.Array):
            return [self._plain(each) for each in value]
        return {"handle": None}  # a pointer that nobody gave us as one


class BmcRecorder:
    """A BMC that notes what it answers. It changes nothing."""

    def __init__(self, bmc: Bmc) -> None:
        self._bmc = bmc
        self.calls: list[dict[str, Any]] = []

    def get(self, path: str) -> Answer:
        """Ask, and note it."""
        answer = self._bmc.get(path)
        self.calls.append({"call": "GET", "with": [path], "gives": answer._asdict()})
        return answer

    def patch(self, path: str, body: dict[str, Any], etag: str | None) -> NoReturn:
        """Refused: only reads are recorded."""
        raise InvalidRequestError(f"{path} is not changed while answers are recorded")

    def close(self) -> None:
        """Let the connection go."""
        self._bmc.close()


def record(host: GpuHost, calls: list[dict[str, Any]], way: Way, now: datetime) -> dict[str, Any]:
    """Read every GPU of a host that was opened over a recorder, once; the document to keep.

    Raises:
        FactoryError: the host could not be asked.
    """
    for device in host.devices():
        device.read()
    return {
        "format": FORMAT,
        "way": way.value,
        "says": host.says,
        "recorded_at": now.isoformat(),
        "redacted": False,
        "calls": calls,
    }


def redacted(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same without serial numbers, uuids and the like: each becomes `redacted-n`, everywhere.

    Two equal ones stay equal, so that what belongs together still does.
    """
    secrets: dict[str, str] = {}

    def note(value: Any) -> None:
        if isinstance(value, str) and value not in _UNKNOWN_TEXT:
            secrets.setdefault(value, f"redacted-{len(secrets)}")

    def look(value: Any) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                if str(key).casefold().replace("_", "").startswith("serial") or any(
                    secret in str(key).casefold() for secret in _SECRET_KEYS
                ):
                    note(each)
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    for entry in document["calls"]:
        if entry["call"] in _SECRET_CALLS:
            note(entry.get("gives"))
        look(entry.get("gives"))

    def hide(value: Any) -> Any:
        if isinstance(value, str):
            for secret in sorted(secrets, key=len, reverse=True):
                value = value.replace(secret, secrets[secret])
            return value
        if isinstance(value, Mapping):
            return {key: hide(each) for key, each in value.items()}
        return [hide(each) for each in value] if isinstance(value, list) else value

    return {**document, "redacted": True, "calls": hide(list(document["calls"]))}


def save(document: Mapping[str, Any], file: Path) -> None:
    """Write a recording.

    Raises:
        InvalidRequestError: the file is there already, or cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as out:
            json.dump(document, out, indent=1, allow_nan=False)
            out.write("\n")
    except FileExistsError:
        raise InvalidRequestError(f"{file} is there already; name another file") from None
    except OSError as error:
        raise InvalidRequestError(f"{file} cannot be written: {error}") from error


def load(file: Path) -> dict[str, Any]:
    """A recording.

    Raises:
        InvalidRequestError: it cannot be read, or is none of this format.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InvalidRequestError(f"{file} is larger than {MAX_FILE_BYTES} bytes")
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{file} is no recording: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidRequestError(f"{file} is not of the format {FORMAT}")
    if document.get("way") not in set(Way) or not isinstance(document.get("calls"), list):
        raise InvalidRequestError(f"{file} says not how it was recorded")
    return document


def open_recorded(document: Mapping[str, Any], clock: Clock) -> GpuHost:
    """The host of a recording, read by the same code as a real one."""
    from interlock_servers.devices.nvml import NvmlHost
    from interlock_servers.devices.redfish import RedfishHost

    match Way(document["way"]):
        case Way.NVML:
            host: GpuHost = NvmlHost(clock, RecordedLibrary(document))
        case Way.AMD_SMI:
            host = amd_smi.AmdSmiHost(clock, RecordedLibrary(document))
        case Way.REDFISH:
            host = RedfishHost(clock, RecordedBmc(document))
    host.says = f"recorded {document['recorded_at']}: {document['says']}"
    return host


class RecordedError(Exception):
    """An error of a recorded library, under both names that the libraries give the code."""

    def __init__(self, value: int | None, says: str = "") -> None:
        super().__init__(says or f"error {value}")
        self.value = value
        self.err_code = value
        self.err_info = says or f"error {value}"


class Mask255(ctypes.Structure):
    """The mask of 255 profiles of NVML."""

    _fields_ = (("mask", ctypes.c_uint * 8),)


class CurrentProfiles(ctypes.Structure):
    """What NVML fills with profiles; by the name of its first version."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("perfProfilesMask", Mask255),
        ("requestedProfilesMask", Mask255),
        ("enforcedProfilesMask", Mask255),
    )


class RecordedLibrary:
    """What has the functions of `pynvml` or `amdsmi`, and answers as the machine did.

    A call that was made several times gives its answers in turn, and then the last one again.
    """

    NVMLError = RecordedError
    AmdSmiException = RecordedError
    AmdSmiTemperatureType = SimpleNamespace(EDGE=0, HOTSPOT=1, VRAM=2)
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT=0)

    def __init__(self, document: Mapping[str, Any]) -> None:
        is_nvml = document["way"] == Way.NVML
        self._not_supported, self._no_permission = (3, 4) if is_nvml else (2, 10)
        self._writes = nvml_names.WRITES if is_nvml else amd_smi.WRITES
        self._answers: dict[str, list[dict[str, Any]]] = {}
        for entry in document["calls"]:
            self._answers.setdefault(_key(entry["call"], entry["with"]), []).append(entry)

    def __getattr__(self, name: str) -> Any:
        if name == nvml_names.CURRENT_PROFILES:
            return CurrentProfiles
        if not name.startswith(("nvml", "amdsmi_")):
            raise AttributeError(name)

        def ask(*arguments: Any) -> Any:
            if name in self._writes:
                raise RecordedError(self._no_permission, "a recording takes no limit")
            answers = self._answers.get(_key(name, [_argument(a) for a in arguments]))
            if not answers:
                raise RecordedError(self._not_supported, f"{name} was not recorded so")
            entry = answers.pop(0) if len(answers) > 1 else answers[0]
            if "raises" in entry:
                raise RecordedError(entry["raises"]["code"], entry["raises"]["says"])
            outs = _outs(arguments)
            for out, filled in zip(outs, entry.get("fills", []), strict=True):
                _fill(out, filled["fields"])
            return _revived(entry["gives"])

        return ask


class RecordedBmc:
    """A BMC that answers as the real one did."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._answers = {entry["with"][0]: entry["gives"] for entry in document["calls"]}

    def get(self, path: str) -> Answer:
        """The recorded answer; what was not asked then does not answer now."""
        if path not in self._answers:
            raise UnavailableError(f"{path} was not recorded")
        return Answer(**self._answers[path])

    def patch(self, path: str, body: dict[str, Any], etag: str | None) -> Answer:
        """Refused as by a BMC that we may only read."""
        del path, body, etag
        return Answer(403, None, {"error": {"message": "a recording takes no limit"}})

    def close(self) -> None:
        """There is nothing to close."""


class _Handle(SimpleNamespace):
    """A handle of a recording."""


def _key(name: str, arguments: list[Any]) -> str:
    return json.dumps([name, arguments], sort_keys=True)


def _argument(value: Any) -> Any:
    if isinstance(value, _Handle):
        return {"handle": value.number}
    if type(value) is _OUT:
        return {"out": True}
    return [_argument(each) for each in value] if isinstance(value, list) else value


def _outs(arguments: Iterable[Any]) -> list[Any]:
    """The structures that a call is to fill."""
    return [argument._obj for argument in arguments if type(argument) is _OUT]


def _fill(structure: Any, fields: Mapping[str, Any]) -> None:
    """Write recorded fields into a structure, arrays word by word."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _fill(getattr(structure, name), value["fields"])
        elif isinstance(value, list):
            getattr(structure, name)[:] = value
        else:
            setattr(structure, name, value)


def _revived(value: Any) -> Any:
    if isinstance(value, list):
        return [_revived(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"handle"}:
        return _Handle(number=value["handle"])
    if set(value) == {"bytes"}:
        return value["bytes"].encode("latin-1")
    if set(value) == {"fields"}:
        fields = {name: _revived(each) for name, each in value["fields"].items()}
        return SimpleNamespace(**fields)
    return {name: _revived(each) for name, each in value.items()}
