"""The embedded API server itself: what it adds to the promises, and how much it holds."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx2
import pytest

from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.embedded.personas import ADMIN, Persona
from interlock_servers.transports.kube.embedded.statuses import ApiError
from interlock_tools.clock import ManualClock
from interlock_tools.errors import InvalidRequestError
from tests.kube.asking import Json, node, pod
from tests.kube.definitions import definitions

PODS = 2_000  # a twentieth of the hall that `make bench` is about


def client(kube: EmbeddedKube, persona: str = "admin") -> httpx2.AsyncClient:
    """A raw HTTP client."""
    headers = {"Authorization": f"Bearer {kube.tokens[persona]}"}
    return httpx2.AsyncClient(base_url=kube.url, headers=headers, timeout=30, trust_env=False)


def hall(nodes: int, pods: int) -> Iterator[Json]:
    """Nodes of eight GPUs, and pods all over them."""
    for number in range(nodes):
        yield {**node(f"n{number}"), "status": {"capacity": {"nvidia.com/gpu": "8"}}}
    for number in range(pods):
        made = pod(f"p{number}", {"job": f"j{number % 100}"}, nodeName=f"n{number % nodes}")
        made["metadata"]["namespace"] = "default"
        ready = [{"type": "Ready", "status": "True"}]
        yield {**made, "status": {"phase": "Running", "conditions": ready}}


async def test_what_is_loaded_is_there_as_it_was_given(tmp_path: Path) -> None:
    """Status included, which no create would keep."""
    kube = EmbeddedKube(tmp_path)
    kube.load(hall(2, 3))
    async with kube, client(kube) as http:
        listed = (
            await http.get("/api/v1/pods", params={"fieldSelector": "spec.nodeName=n0"})
        ).json()
        found = (await http.get("/api/v1/nodes/n1")).json()

    assert [each["metadata"]["name"] for each in listed["items"]] == ["p0", "p2"]
    assert {each["status"]["phase"] for each in listed["items"]} == {"Running"}
    assert found["status"]["capacity"] == {"nvidia.com/gpu": "8"}


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    """A definition comes before its objects, and rules hold here too."""
    kube = EmbeddedKube(tmp_path)
    with pytest.raises(InvalidRequestError, match="load its CRD first"):
        kube.load([{"apiVersion": "none.example/v1", "kind": "None", "metadata": {"name": "n"}}])
    with pytest.raises(ApiError, match=r"metadata\.name"):
        kube.load([node("N_1")])


async def test_kubeconfigs_are_for_personas_while_it_listens(tmp_path: Path) -> None:
    """Any Kubernetes client can be pointed at it."""
    kube = EmbeddedKube(tmp_path, personas=(ADMIN, Persona("planner")))
    with pytest.raises(InvalidRequestError, match="does not listen"):
        kube.kubeconfig()
    async with kube:
        with pytest.raises(InvalidRequestError, match="none of admin, planner"):
            kube.kubeconfig("nobody")
        path = kube.kubeconfig("planner")
        read = json.loads(path.read_text())

        assert path.stat().st_mode & 0o077 == 0
        assert read["clusters"][0]["cluster"]["server"] == kube.url
        assert read["users"][0]["user"]["token"] == kube.tokens["planner"]


async def test_its_moments_are_those_of_the_clock_it_was_given(tmp_path: Path) -> None:
    """A simulated day has simulated ages."""
    clock = ManualClock(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
    kube = EmbeddedKube(tmp_path, clock=clock)
    async with kube, client(kube) as http:
        made = (await http.post("/api/v1/nodes", json=node("n"))).json()

    assert made["metadata"]["creationTimestamp"] == "2030-01-02T03:04:05Z"
    assert made["metadata"]["managedFields"][0]["time"] == "2030-01-02T03:04:05Z"


async def test_it_can_be_as_old_as_before_policy_v1(tmp_path: Path) -> None:
    """Whoever evicts has to discover."""
    kube = EmbeddedKube(tmp_path, policy_versions=("v1beta1",))
    kube.load([{**pod("p"), "metadata": {"name": "p", "namespace": "default"}}])
    async with kube, client(kube) as http:
        groups = (await http.get("/apis/policy")).json()
        core = (await http.get("/api/v1")).json()["resources"]
        evictions = next(each for each in core if each["name"] == "pods/eviction")
        eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}}
        evicted = await http.post("/api/v1/namespaces/default/pods/p/eviction", json=eviction)

    assert [each["version"] for each in groups["versions"]] == ["v1beta1"]
    assert evictions["version"] == "v1beta1"
    assert evicted.status_code == 201


async def test_rules_that_it_does_not_evaluate_are_said(tmp_path: Path) -> None:
    """A definition with CEL is taken, with a warning."""
    kube = EmbeddedKube(tmp_path)
    async with kube, client(kube) as http:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        warned = {}
        for definition in definitions("kai"):
            answer = await http.post(path, json=definition)
            assert answer.status_code == 201, answer.text
            warned[definition["spec"]["names"]["kind"]] = "warning" in answer.headers

    assert warned["Topology"]
    assert not warned["Queue"]


async def test_every_definition_of_a_real_component_is_served(tmp_path: Path) -> None:
    """Some of them are of more than a megabyte."""
    kube = EmbeddedKube(tmp_path)
    every = list(definitions())
    kube.load(every)
    async with kube, client(kube) as http:
        for definition in every:
            spec = definition["spec"]
            served = next(each["name"] for each in spec["versions"] if each["served"])
            path = f"/apis/{spec['group']}/{served}/{spec['names']['plural']}"
            assert (await http.get(path)).status_code == 200, path


async def test_pages_of_many_hold_each_of_them_once(tmp_path: Path) -> None:
    """In the order of their names, while others come and go."""
    kube = EmbeddedKube(tmp_path)
    kube.load(hall(50, PODS))
    async with kube, client(kube) as http:
        names: list[str] = []
        options: dict[str, str] = {"limit": "500"}
        while True:
            page = (await http.get("/api/v1/pods", params=options)).json()
            names += [each["metadata"]["name"] for each in page["items"]]
            await http.delete(f"/api/v1/namespaces/default/pods/p{PODS - 1}?gracePeriodSeconds=0")
            if not (token := page["metadata"].get("continue")):
                break
            options["continue"] = token

    assert len(names) == PODS
    assert names == sorted(f"p{number}" for number in range(PODS))


async def test_a_watch_that_falls_behind_is_told_that_the_past_is_gone(tmp_path: Path) -> None:
    """410 on the stream: list again."""
    kube = EmbeddedKube(tmp_path)
    async with kube, client(kube) as http:
        version = (await http.get("/api/v1/nodes")).json()["metadata"]["resourceVersion"]
        kube.load([node("n")])
        kube.compact()
        options = {"watch": "1", "resourceVersion": version}
        with anyio.fail_after(10):
            answer = await http.get("/api/v1/nodes", params=options)

    event = json.loads(answer.text)
    assert (answer.status_code, event["type"]) == (200, "ERROR")
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_it_ends_though_somebody_watches(tmp_path: Path) -> None:
    """The stream ends with it."""
    kube = EmbeddedKube(tmp_path)
    heard: list[str] = []
    told = anyio.Event()

    async def listen() -> None:
        options = {"watch": "1", "resourceVersion": "0"}
        async with client(kube) as http, http.stream("GET", "/api/v1/nodes", params=options) as it:
            async for line in it.aiter_lines():
                heard.append(line)
                told.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, kube:
            tasks.start_soon(listen)
            kube.load([node("n")])
            await told.wait()

    assert [json.loads(line)["type"] for line in heard] == ["ADDED"]
