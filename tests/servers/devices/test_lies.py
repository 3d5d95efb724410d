"""What a node says that cannot be so: seen, named, and not used."""

import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock_plant import Job, JobClass, Plant, SteadyLoad, lab_site
from interlock_servers.devices import schema
from interlock_servers.devices.belief import disagreement
from interlock_servers.devices.client import NodeClient, NodeState, NodeView
from interlock_servers.devices.models import GpuReading, Unread
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_servers.devices.wire import read_gpu, read_node, write_gpu
from tests.servers.devices.conftest import START
from tests.servers.devices.nodes import (
    NODE,
    OTHER,
    Nodes,
    StepClock,
    client_of,
)


@asynccontextmanager
async def liar(change: Callable[[Any], None], answer: Callable[[], Any]) -> AsyncIterator[str]:
    """An agent that changes what it would say; its address."""

    async def handle(request: Any, context: Any) -> Any:
        said = answer()
        change(said)
        return said

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handler = grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=schema.message_class("ReadNodeRequest").FromString,
        response_serializer=schema.message_class("NodeReading").SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                f"{schema.PACKAGE}.{schema.SERVICE}", {"ReadNode": handler}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


def honest(plant: Plant, node_id: str = NODE) -> Callable[[], Any]:
    """What the agent of a node would say, a new look each time."""
    twin = HostTwin(plant, node_id)
    host = NvmlHost(StepClock(START), NvmlTwin(twin))
    looks = iter(range(1, 1_000_000))

    def answer() -> Any:
        return schema.message(
            "NodeReading",
            node_id=node_id,
            boot_id="boot-1",
            sequence=next(looks),
            age_s=0.0,
            gpus=[write_gpu(device.read(), START) for device in host.devices()],
        )

    return answer


def _twice(said: Any) -> None:
    said.gpus.add().CopyFrom(said.gpus[0])


LIES: dict[str, Callable[[Any], None]] = {
    "another node": lambda said: setattr(said, "node_id", OTHER),
    "from the future": lambda said: setattr(said, "age_s", -60.0),
    "no age": lambda said: said.ClearField("age_s"),
    "negative power": lambda said: setattr(said.gpus[0], "power_average_w", -1.0),
    "no number": lambda said: setattr(said.gpus[0], "power_average_w", float("nan")),
    "too much power": lambda said: setattr(said.gpus[0], "power_instant_w", 5600.0),
    "limit above range": lambda said: setattr(said.gpus[0], "limit_now_w", 900.0),
    "limit of nothing": lambda said: setattr(said.gpus[0], "limit_now_w", 0.0),
    "range upside down": lambda said: setattr(said.gpus[0], "limit_min_w", 800.0),
    "value left out": lambda said: said.gpus[0].ClearField("limit_now_w"),
    "value and reason": lambda said: setattr(said.gpus[0].unread["energy_j"], "why", "failed"),
    "unknown reason": lambda said: setattr(said.gpus[0].unread["bus_id"], "why", "bored"),
    "one gpu twice": _twice,
    "unknown violation": lambda said: setattr(said.gpus[0].violations[0], "kind", "mood"),
    "counter of nothing": lambda said: said.gpus[0].violations[0].ClearField("held_s"),
    "endless age": lambda said: setattr(said, "age_s", 1e300),
    "unknown vendor": lambda said: setattr(said.gpus[0], "vendor", "acme"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_node_that_says_what_cannot_be_is_named_and_not_used(
    nodes: Nodes, lie: str
) -> None:
    """With the contradiction in words; nothing of it is taken, and the others are read."""
    settings = nodes.settings()
    async with liar(LIES[lie], honest(nodes.plant)) as address:
        lying = settings.nodes[0].model_copy(update={"address": address})
        both = settings.model_copy(update={"nodes": (lying, settings.nodes[1])})
        async with NodeClient(both, nodes.clock) as client:
            views = await client.read()
    assert views[NODE].is_lying, views[NODE]
    assert views[NODE].why
    assert views[NODE].answer is None
    assert views[NODE].state is NodeState.NEVER
    assert views[OTHER].state is NodeState.FRESH


async def test_an_old_answer_that_comes_again_is_seen(nodes: Nodes) -> None:
    """A node frozen in time looks calm for ever."""
    says = [5, 6, 4, 7]
    answer = honest(nodes.plant)
    async with liar(lambda said: setattr(said, "sequence", says.pop(0)), answer) as address:
        node = nodes.settings().nodes[0].model_copy(update={"address": address})
        one = nodes.settings().model_copy(update={"nodes": (node,)})
        async with NodeClient(one, nodes.clock) as client:
            seen = [(await client.read())[NODE].is_lying for _ in range(4)]
    assert seen == [False, False, True, False]


async def test_power_that_the_energy_counter_contradicts_is_not_believed(nodes: Nodes) -> None:
    """The other witness within the device: one odd look may be a swing, two are a lie."""
    nodes.twins[NODE].inject(GpuFault.LIES_ABOUT_POWER, [5])
    views: list[NodeView] = []
    async with client_of(nodes) as client:
        await client.read()
        for _ in range(3):
            await nodes.step(2)
            views.append((await client.read())[NODE])
        nodes.twins[NODE].repair(GpuFault.LIES_ABOUT_POWER)
        for _ in range(2):
            await nodes.step(2)
            views.append((await client.read())[NODE])
        other = client.views()[OTHER]
    assert [view.is_lying for view in views] == [False, False, True, False, False]
    assert "energy counter" in views[2].why
    assert f"GPU-{NODE}-5" in views[2].why
    assert not other.is_lying


async def test_one_gpu_cannot_be_in_two_nodes(nodes: Nodes) -> None:
    """A cap would go to one of them; which one cannot be told, so neither is used."""
    settings = nodes.settings()
    async with liar(
        lambda said: setattr(said, "node_id", OTHER), honest(nodes.plant, NODE)
    ) as address:
        second = settings.nodes[1].model_copy(update={"address": address})
        both = settings.model_copy(update={"nodes": (settings.nodes[0], second)})
        async with NodeClient(both, nodes.clock) as client:
            views = await client.read()
    assert [view.is_lying for view in views.values()] == [True, True]
    assert "shown by" in views[NODE].why


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 100_000), st.integers(0, 255), st.sampled_from(["set", "cut", "add"])),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(mutations=MUTATIONS)
def test_whatever_bytes_a_node_sends_they_are_a_reading_or_a_named_failure(
    raw_answer: bytes, mutations: list[tuple[int, int, str]]
) -> None:
    """Never an exception that nobody expects, never a number that is none."""
    data = bytearray(raw_answer)
    for place, value, how in mutations:
        at = place % max(1, len(data))
        if how == "set" and data:
            data[at] = value
        elif how == "cut":
            del data[at:]
        else:
            data.insert(at, value)
    try:
        sent = schema.message_class("NodeReading").FromString(bytes(data))
    except DecodeError:
        return
    try:
        answer = read_node(sent, START)
    except (ValueError, OverflowError):
        return
    for gpu in answer.gpus:
        for name in ("power_average_w", "power_instant_w", "energy_j", "temperature_c"):
            value = getattr(gpu, name)
            assert isinstance(value, Unread) or math.isfinite(value)


@pytest.fixture(scope="module")
def raw_answer() -> bytes:
    """One honest answer as bytes."""
    site = lab_site()
    jobs = (Job("j", "t", JobClass.TRAIN, tuple(range(8))),)
    plant = Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))
    said = honest(plant, site.node_ids[0])()
    return bytes(said.SerializeToString())


def test_every_reading_survives_the_wire(plant: Plant) -> None:
    """Random pieces taken away: what is not known stays not known, for its own reason."""
    host = NvmlHost(StepClock(START), NvmlTwin(HostTwin(plant, NODE)))
    plant.step()
    full = host.devices()[0].read()
    rng = random.Random(5)  # noqa: S311 (no secret)
    names = ["power_average_w", "energy_j", "events", "xids", "links_up", "mig", "remapped_rows"]
    gone = Unread(next(iter(full.unread().values())).why, "taken away")
    for _ in range(100):
        taken: dict[str, Any] = dict.fromkeys(rng.sample(names, rng.randrange(8)), gone)
        less: GpuReading = replace(full, **taken)
        assert read_gpu(write_gpu(less, START), START, START) == less


def test_a_swing_is_no_lie(plant: Plant) -> None:
    """Training swings by a third within seconds; that is within what is believed."""
    host = NvmlHost(StepClock(START), NvmlTwin(HostTwin(plant, NODE)))
    reading = host.devices()[0].read()
    was = replace(reading, power_average_w=700.0, energy_j=1000.0)
    later = START + timedelta(seconds=2)
    swung = replace(reading, power_average_w=420.0, energy_j=1000.0 + 2 * 650.0, observed_at=later)
    lied = replace(reading, power_average_w=160.0, energy_j=1000.0 + 2 * 650.0, observed_at=later)
    assert disagreement(swung, was) is None
    assert disagreement(lied, replace(was, power_average_w=160.0)) is not None
    assert disagreement(replace(swung, energy_j=5.0), was) is None  # the driver was loaded anew
