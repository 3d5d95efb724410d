"""Two hundred thousand points in one process: what a value costs, what all take, how pages come.

The process is a child of its own, so that its memory is that of the store and of nothing else that
was measured before it; what it takes at its greatest is what counts. Memory is in MB, 10^6 bytes.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from interlock_evals.bench.measured import Measured, median
from interlock_evals.reports import Promise
from interlock_servers.exchange.client import MAX_PAGE, ExchangeClient
from interlock_servers.exchange.points import PointState
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import SystemClock

RACKS, OF_A_RACK = 19_000, 10
METERS = 1_000
OF_A_METER = 10
POINTS = RACKS * OF_A_RACK + METERS * OF_A_METER
ROUNDS = 5  # a million past readings: as many as are kept
BATCH = 5_000
PAGES = 15
VALUE_LIMIT_US, MEMORY_LIMIT_MB, PAGE_LIMIT_MS = 15.0, 400.0, 50.0
PATIENCE_S = 300.0
UNITS = {
    "RackPower": "kW",
    "RackLiquidSupplyTemperature": "C",
    "RackLiquidReturnTemperature": "C",
    "RackLiquidFlow": "LPM",
    "RackLiquidDifferentialPressure": "kPa",
    "RackControlValvePosition": "%",
}
STATES = ("RackLeakDetect", "RackLeakSensorFault")
ISOLATION = ("RackLiquidIsolationStatus", "RackElectricalIsolationStatus")
METERED = ("Voltage", "Frequency", "ApparentPower", "ActivePower", "Current", "CurrentLimit")

Said = tuple[str, bytes]


def measure() -> Measured:
    """The figures of a child process."""
    done = subprocess.run(
        [sys.executable, "-m", "interlock_evals.bench.ingest_store"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    figures = {
        "ingest_value_us": median(said["value_s"], "us of CPU", 1e6),
        "ingest_metadata_us": median(said["metadata_s"], "us of CPU", 1e6),
        "store_200000_points_mb": median([said["peak_kib"] * 1024 / 1e6], "MB"),
    }
    pages = {
        f"catalogue_{name}_ms": median(took, "ms of CPU", 1e3)
        for name, took in said["pages"].items()
    }
    value, memory = figures["ingest_value_us"].value, figures["store_200000_points_mb"].value
    promises = {
        "ingest_value_us": Promise.at_most(value, VALUE_LIMIT_US, "us of CPU"),
        "store_200000_points_mb": Promise.at_most(memory, MEMORY_LIMIT_MB, "MB"),
    }
    promises |= {
        key: Promise.at_most(figure.value, PAGE_LIMIT_MS, "ms of CPU")
        for key, figure in pages.items()
    }
    return Measured(figures | pages, promises)


def child() -> dict[str, Any]:
    """What one process measures of itself."""
    mqtt = MqttSettings(brokers=("mqtt://127.0.0.1:1",), client_id="bench-store")
    client = ExchangeClient(ExchangeSettings(mqtt=mqtt, site_id="lab"), SystemClock())
    metadata_s = _ingest(client, _descriptions())
    value_s = [cost for turn in range(ROUNDS) for cost in _ingest(client, _values(turn))]
    pages = _pages(client)
    rejected, points = client.store.rejected, len(client.store)
    if rejected or points != POINTS:
        raise RuntimeError(f"{points} points, and {rejected} of the measure were refused")
    return {
        "metadata_s": metadata_s,
        "value_s": value_s,
        "pages": pages,
        "peak_kib": _peak_kib(),
    }


def _ingest(client: ExchangeClient, messages: Iterator[Said]) -> list[float]:
    """CPU seconds a message, by batches; each message has a moment of its own, as on the wire."""
    costs = []
    while batch := [(*said, client.now()) for said in islice(messages, BATCH)]:
        begun_s = time.process_time()
        for topic, payload, at in batch:
            client.store.ingest(topic, payload, at, retained=False)
        costs.append((time.process_time() - begun_s) / len(batch))
    return costs


def _pages(client: ExchangeClient) -> dict[str, list[float]]:
    """What the greatest page takes at each end, in the middle and where it is searched for."""
    keys = client.store.catalogue().keys
    middle, last = keys[len(keys) // 2], keys[-MAX_PAGE - 1]

    def page(**which: Any) -> Callable[[], object]:
        return lambda: client.points(limit=MAX_PAGE, **which)

    def after_a_change() -> object:
        name = f"New/{time.perf_counter_ns()}"
        _describe(client, 0, name)
        client.rack(_rack(0))  # which asks what hangs on what
        return client.points(limit=MAX_PAGE)

    wanted: dict[str, Callable[[], object]] = {
        "first_page": page(),
        "middle_page": page(cursor=middle),
        "last_page": page(cursor=last),
        "page_after_a_change": after_a_change,
        "search_by_rack": page(rack_location_id=_rack(RACKS - 1)),
        "search_by_type": page(object_type="PowerMeter", point_type="ActivePower"),
        "search_by_state": page(state=PointState.BAD_QUALITY),
        "search_in_vain": page(state=PointState.CONTRADICTED),
    }
    return {name: [_cpu_s(ask) for _ in range(PAGES)] for name, ask in wanted.items()}


def _cpu_s(ask: Callable[[], object]) -> float:
    """What it takes of the processor; a page waits for nothing else."""
    begun_s = time.process_time()
    ask()
    return time.process_time() - begun_s


def _describe(client: ExchangeClient, number: int, name: str) -> None:
    """Say something else of a point that is known."""
    topic, payload = next(islice(_descriptions(), number, None))
    said = json.loads(payload) | {"rackLocationName": name}
    client.store.ingest(topic, json.dumps(said).encode(), client.now(), retained=False)


def _descriptions() -> Iterator[Said]:
    """The metadata of every point."""
    for number in range(RACKS):
        whose = {"rackLocationName": f"HALL 1 {_rack(number)}", "rackLocationId": _rack(number)}
        for point_type, tail in _of_rack(number):
            said: dict[str, Any] = {"objectType": "Rack", "pointType": point_type, **whose}
            if point_type in UNITS:
                said["engUnit"] = UNITS[point_type]
            else:
                texts = ("NotIsolated", "Isolated") if point_type in ISOLATION else ("No", "Yes")
                said["stateText"] = [{"value": n, "text": text} for n, text in enumerate(texts)]
            yield f"BMS/v1/PUB/Metadata/{tail}", json.dumps(said).encode()
    for number in range(METERS):
        meter = f"E-BUS-{number:05d}"
        served = [_rack(number * 19 + rack) for rack in range(19)]
        for point_type, tail in _of_meter(number):
            said = {"objectType": "PowerMeter", "pointType": point_type, "engUnit": "kW"}
            said |= {"objectName": meter, "objectId": meter, "servesId": served}
            yield f"BMS/v1/PUB/Metadata/{tail}", json.dumps(said).encode()


def _values(turn: int) -> Iterator[Said]:
    """A reading of every point; a few are bad."""
    for number in range(RACKS + METERS):
        tails = _of_rack(number) if number < RACKS else _of_meter(number - RACKS)
        for place, (point_type, tail) in enumerate(tails):
            reading = number % 2 if point_type in (*STATES, *ISOLATION) else (number + place) / 7
            said = {
                "value": reading + (turn if isinstance(reading, float) else 0),
                "timestamp": time.time_ns() // 1_000_000,
                "quality": 0 if number % 997 == 0 else 1,
            }
            yield f"BMS/v1/PUB/Value/{tail}", json.dumps(said).encode()


def _rack(number: int) -> str:
    return f"H1-R{number:05d}"


def _of_rack(number: int) -> list[tuple[str, str]]:
    types = (*UNITS, *STATES, *ISOLATION)[:OF_A_RACK]
    return [(kind, f"Rack/{kind}/site-1/hall-1/{_rack(number)}/{kind}/value") for kind in types]


def _of_meter(number: int) -> list[tuple[str, str]]:
    types = [METERED[place % len(METERED)] for place in range(OF_A_METER)]
    return [
        (kind, f"PowerMeter/{kind}/site-1/hall-1/E-BUS-{number:05d}/info/{place}/value")
        for place, kind in enumerate(types)
    ]


def _peak_kib() -> int:
    """The greatest resident memory of this process; KiB on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.stdout.write(json.dumps(child()))
