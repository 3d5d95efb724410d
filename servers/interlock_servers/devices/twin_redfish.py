"""The BMC of a host of the plant: Redfish over HTTP on loopback, raw JSON, failing on request.

Written from DMTF EnvironmentMetrics 1.3, Processor 1.20 and ProcessorMetrics 1.6, with the paths
and the habits of HGX baseboards: `GPU_SXM_n`, an empty list where energy is not known.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from interlock_servers.devices.twin import GpuFault, HostTwin

SYSTEM = "/redfish/v1/Systems/HGX_Baseboard_0"
PAGE = 5  # members of a page
LOGIN = ("admin", "twin")


class RedfishTwin:
    """A BMC; entered, it listens on a port that the system chooses.

    Attributes:
        url: where it is.
        limits_off: whether its power control is switched off, with a set point all the same.
        takes_tasks: whether it answers 202 and acts later, when told.
        patches: the bodies of what it was asked to change.
    """

    def __init__(self, host: HostTwin) -> None:
        self.host = host
        self.url = ""
        self.limits_off = False
        self.takes_tasks = False
        self.patches: list[dict[str, Any]] = []
        self._tags = [1] * len(host.gpus)
        self._login = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        twin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30  # a client that forgot to close ends all the same
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                twin._answer(self, None)

            def do_PATCH(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                twin._answer(self, json.loads(self.rfile.read(length)))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name)
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # their sockets are closed before it is left
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, body: dict[str, Any] | None) -> None:
        headers: dict[str, str] = {}
        status, answer = 401, _error("login needed")
        if request.headers.get("Authorization") == self._login:
            status, headers, answer = self.respond(
                request.path, body, request.headers.get("If-Match")
            )
        text = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(text)

    def respond(
        self, path: str, body: dict[str, Any] | None, if_match: str | None
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers and body for one request."""
        where, _, query = path.partition("?")
        where = where.rstrip("/")
        if body is None and (answer := self._tree(where, query)) is not None:
            return 200, {}, answer
        gpu = self._gpu_of(where)
        if gpu is None or not self.host.raw(gpu).is_lit:
            return 404, {}, _error("no such resource")
        self.host.wait_if_hung(gpu)
        if where.endswith("/EnvironmentMetrics"):
            if body is None:
                return 200, {"ETag": f'"{self._tags[gpu]}"'}, self._environment(gpu)
            return self._patch(gpu, body, if_match)
        if body is None:
            if where.endswith("/Oem/Nvidia/WorkloadPowerProfile"):
                return 200, {}, self._profiles()
            metrics = where.endswith("/ProcessorMetrics")
            return 200, {}, self._metrics(gpu) if metrics else self._processor(gpu)
        return 405, {}, _error("not to be changed")

    def _tree(self, where: str, query: str) -> dict[str, Any] | None:
        names: dict[str, dict[str, Any]] = {
            "/redfish/v1": {
                "RedfishVersion": "1.17.0",
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
            },
            "/redfish/v1/Systems": {"Members": [{"@odata.id": SYSTEM}]},
            SYSTEM: {"Id": "HGX_Baseboard_0", "Processors": {"@odata.id": f"{SYSTEM}/Processors"}},
            f"{SYSTEM}/Processors/CPU_0": {"Id": "CPU_0", "ProcessorType": "CPU"},
        }
        if where != f"{SYSTEM}/Processors":
            return names.get(where)
        paths = [f"{where}/CPU_0"]
        paths += [f"{where}/GPU_SXM_{gpu + 1}" for gpu in range(len(self.host.gpus))]
        first = int(query.removeprefix("$skip=") or 0)
        page: dict[str, Any] = {
            "Members": [{"@odata.id": each} for each in paths[first : first + PAGE]],
            "Members@odata.count": len(paths),
        }
        if first + PAGE < len(paths):
            page["Members@odata.nextLink"] = f"{where}?$skip={first + PAGE}"
        return page

    def _gpu_of(self, where: str) -> int | None:
        name = where.removeprefix(f"{SYSTEM}/Processors/").split("/")[0]
        number = name.removeprefix("GPU_SXM_")
        known = name != number and number.isdigit() and 1 <= int(number) <= len(self.host.gpus)
        return int(number) - 1 if known else None

    def _processor(self, gpu: int) -> dict[str, Any]:
        path = f"{SYSTEM}/Processors/GPU_SXM_{gpu + 1}"
        profiles = {
            "WorkloadPowerProfile": {"@odata.id": f"{path}/Oem/Nvidia/WorkloadPowerProfile"}
        }
        return {
            "@odata.id": path,
            "Oem": {"Nvidia": profiles if self.host.profiles[0] is not None else {}},
            "Id": f"GPU_SXM_{gpu + 1}",
            "ProcessorType": "GPU",
            "Manufacturer": "NVIDIA",
            "Model": self.host.plant.site.gpu.model,
            "UUID": f"00000000-0000-0000-0000-{self.host.gpus[gpu]:012x}",
            "SerialNumber": f"165{self.host.gpus[gpu]:07d}",
            "EnvironmentMetrics": {"@odata.id": f"{path}/EnvironmentMetrics"},
            "Metrics": {"@odata.id": f"{path}/ProcessorMetrics"},
        }

    def _environment(self, gpu: int) -> dict[str, Any]:
        raw = self.host.raw(gpu)
        control: dict[str, Any] = {
            "SetPoint": raw.cap_set_w,
            "DefaultSetPoint": raw.cap_max_w,
            "AllowableMin": raw.cap_min_w,
            "AllowableMax": raw.cap_max_w,
            "ControlMode": "Disabled" if self.limits_off else "Automatic",
        }
        if self.host.has(gpu, GpuFault.NO_RANGE):
            del control["AllowableMin"]
        return {
            "@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics",
            "PowerLimitWatts": control,
            "PowerWatts": {"Reading": round(raw.power_w, 3)},
            "TemperatureCelsius": {"Reading": round(raw.core_c, 2)},
            "EnergyJoules": {"Reading": round(raw.energy_j)},
            "EnergykWh": [],
        }

    def _metrics(self, gpu: int) -> dict[str, Any]:
        raw = self.host.raw(gpu)
        reasons = [
            name
            for name, active in {
                "SWPowerCap": raw.is_capped,
                "HWSlowdown": raw.is_hot or raw.is_braked,
                "HWThermalSlowdown": raw.is_hot,
                "HWPowerBrakeSlowdown": raw.is_braked,
            }.items()
            if active
        ]
        return {"Id": "ProcessorMetrics", "Oem": {"Nvidia": {"ThrottleReasons": reasons or ["NA"]}}}

    def _profiles(self) -> dict[str, Any]:
        """Masks in hex; a BMC counts profiles from three."""
        masks = [sum(1 << number + 3 for number in each or ()) for each in self.host.profiles]
        return {"RequestedProfileMask": hex(masks[0]), "EnforcedProfileMask": hex(masks[1])}

    def _patch(
        self, gpu: int, body: dict[str, Any], if_match: str | None
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        self.patches.append(body)
        if if_match is not None and if_match != f'"{self._tags[gpu]}"':
            return 412, {}, _error("it was changed")
        raw, watts = self.host.raw(gpu), body["PowerLimitWatts"]["SetPoint"]
        if self.host.has(gpu, GpuFault.NO_PERMISSION):
            return 403, {}, _error("InsufficientPrivilege")
        if self.host.has(gpu, GpuFault.REFUSES):
            return 503, {}, _error("the FPGA does not answer")
        if not raw.cap_min_w <= watts <= raw.cap_max_w:
            return 400, {}, _error(f"{watts} is out of range")
        if self.takes_tasks:
            return 202, {}, {"@odata.id": "/redfish/v1/TaskService/Tasks/1"}
        self._tags[gpu] += 1
        self.host.set_limit_w(gpu, watts)
        return 200, {}, self._environment(gpu)


def _error(message: str) -> dict[str, Any]:
    details = [{"Message": message}]
    return {"error": {"code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": details}}
