"""A server that hangs, breaks or lies: reads grow old and say so, writes are never sent twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from interlock_servers.transports.kube.cache import KindCache, Known
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import NODES
from interlock_servers.transports.kube.owners import writers_of
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ComponentError, InvalidRequestError, UnavailableError
from tests.servers.kube.scripted_api import ScriptedApi, kubeconfig, node, scripted_api, status
from tests.servers.waiting import until


def name_of(raw: Json) -> str:
    """What is kept of a node here: its name, and whether it is cordoned."""
    cordoned = " cordoned" if raw["spec"].get("unschedulable") else ""
    return f"{raw['metadata']['name']}{cordoned}"


@asynccontextmanager
async def client_of(
    api: ScriptedApi, folder: Path, *, deadline_s: float = 5.0, quiet_s: float = 5.0
) -> AsyncIterator[KubeClient]:
    """A client of it."""
    settings = ClusterSettings(
        kubeconfig=kubeconfig(folder, api.url), deadline_s=deadline_s, quiet_s=quiet_s
    )
    async with KubeClient(settings, SystemClock(), field_manager="interlock") as client:
        yield client


@asynccontextmanager
async def cache_of(client: KubeClient) -> AsyncIterator[KindCache[str]]:
    """A running cache of its nodes."""
    cache = KindCache(client, NODES, name_of)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache.run)
        with anyio.fail_after(10):
            await cache.listed.wait()
        yield cache
        tasks.cancel_scope.cancel()


@pytest.mark.trap("KU-09")
async def test_a_write_that_gets_no_answer_is_unknown_and_not_sent_again(tmp_path: Path) -> None:
    """It may have been done: only whoever reads it back can tell."""
    async with scripted_api() as api, client_of(api, tmp_path, deadline_s=0.3) as client:
        await client.served(NODES)
        api.hanging = True
        with pytest.raises(UnavailableError, match="whether it was done is unknown"):
            await client.create(NODES, {"metadata": {"name": "gpu-0"}})
        assert api.asked.count("POST /api/v1/nodes") == 1


@pytest.mark.trap("KU-09")
async def test_a_write_that_a_proxy_answers_for_is_unknown_too(tmp_path: Path) -> None:
    """504 is somebody's guess, not the API server's word."""
    async with scripted_api() as api, client_of(api, tmp_path) as client:
        await client.served(NODES)
        api.answer = lambda request: Response("gateway timeout", status_code=504)
        with pytest.raises(UnavailableError, match=r"504.*read back"):
            await client.create(NODES, {"metadata": {"name": "gpu-0"}})
        assert api.asked.count("POST /api/v1/nodes") == 1


async def test_a_read_is_asked_again_and_then_told_as_unavailable(tmp_path: Path) -> None:
    """A read changes nothing, so it may be sent again."""
    async with scripted_api() as api, client_of(api, tmp_path) as client:
        await client.served(NODES)
        refusals = [503, 429]

        def answer(request: Request) -> Response | None:
            return Response("busy", status_code=refusals.pop(0)) if refusals else None

        api.answer = answer
        assert await client.all(NODES) == []
        assert refusals == []


async def test_a_server_that_hangs_is_left_alone_after_a_few_calls(tmp_path: Path) -> None:
    """The breaker: whoever asks next is told at once, and nothing is sent."""
    async with scripted_api() as api, client_of(api, tmp_path, deadline_s=0.2) as client:
        await client.served(NODES)
        api.hanging = True
        with pytest.raises(UnavailableError, match="no answer"):
            await client.get(NODES, "gpu-0")
        sent = len(api.asked)
        with pytest.raises(UnavailableError, match=r"has not answered since.*nothing was sent"):
            await client.create(NODES, {"metadata": {"name": "gpu-0"}})
        assert len(api.asked) == sent
        api.hanging = False
        api.hangs.set()
        with anyio.fail_after(15):
            while client.connection.breaker.is_open:
                await client.clock.sleep(0.1)
                try:
                    await client.all(NODES)
                except UnavailableError:
                    continue
        assert await client.all(NODES) == []


@pytest.mark.trap("KU-14")
async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """Where it leads, our token would go too."""
    async with scripted_api() as api, scripted_api() as thief, client_of(api, tmp_path) as client:
        await client.served(NODES)
        api.answer = lambda request: RedirectResponse(f"{thief.url}/api/v1/nodes")
        with pytest.raises(UnavailableError):
            await client.all(NODES)
        assert thief.asked == []


async def test_an_answer_without_end_is_cut(tmp_path: Path) -> None:
    """What is too large fails by name instead of filling the memory."""
    async with scripted_api() as api, client_of(api, tmp_path) as client:
        await client.served(NODES)
        small = client.settings.model_copy(update={"most_bytes": 65_536})
        client.connection.settings = small
        api.answer = lambda request: Response(b"x" * 100_000)
        with pytest.raises(ComponentError, match="TOO_LARGE"):
            await client.get(NODES, "gpu-0")


async def test_what_is_forbidden_says_where_to_look(tmp_path: Path) -> None:
    """RBAC is for people to change, so the message leads them to what is missing."""
    async with scripted_api() as api, client_of(api, tmp_path) as client:
        await client.served(NODES)
        says = status(403, "Forbidden", 'User "x" cannot patch resource "nodes"')
        api.answer = lambda request: JSONResponse(says, status_code=403)
        with pytest.raises(ComponentError, match=r"FORBIDDEN.*cannot patch.*interlock doctor"):
            await client.get(NODES, "gpu-0")


async def test_causes_of_what_is_invalid_are_told(tmp_path: Path) -> None:
    """The caller can do it better the next time."""
    async with scripted_api() as api, client_of(api, tmp_path) as client:
        await client.served(NODES)
        cause = {"field": "spec.nodeName", "message": "Required value"}
        says = status(422, "Invalid", "it is invalid", causes=[cause])
        api.answer = lambda request: JSONResponse(says, status_code=422)
        with pytest.raises(InvalidRequestError, match=r"spec\.nodeName: Required value"):
            await client.create(NODES, {"metadata": {"name": "gpu-0"}})


LIES: dict[str, list[Json | bytes]] = {
    "no-object": [{"type": "ADDED"}],
    "another-kind": [{"type": "ADDED", "object": {**node("gpu-9", 9), "kind": "Pod"}}],
    "no-uid": [
        {
            "type": "ADDED",
            "object": {
                "kind": "Node",
                "apiVersion": "v1",
                "metadata": {"name": "gpu-9", "resourceVersion": "9"},
            },
        }
    ],
    "no-version": [
        {
            "type": "MODIFIED",
            "object": {
                "kind": "Node",
                "apiVersion": "v1",
                "metadata": {"name": "gpu-9", "uid": "u"},
            },
        }
    ],
    "no-known-type": [{"type": "CHANGED", "object": node("gpu-9", 9)}],
    "an-error": [{"type": "ERROR", "object": status(500, "InternalError", "etcd leader changed")}],
    "gone": [{"type": "ERROR", "object": status(410, "Expired", "too old resource version")}],
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.trap("KU-04")
async def test_a_watch_that_lies_is_not_believed(tmp_path: Path, lie: str) -> None:
    """What cannot be of this watch changes nothing: everything is listed anew."""
    async with scripted_api() as api:
        api.nodes = [node("gpu-1", 1)]
        api.watches = [LIES[lie]]
        async with client_of(api, tmp_path) as client, cache_of(client) as cache:
            await until(lambda: api.lists >= 2)
            await until(lambda: cache.snapshot().known is Known.FRESH)
            assert sorted(cache.values()) == ["gpu-1"]


@pytest.mark.trap("KU-05")
async def test_a_watch_goes_on_from_where_it_was(tmp_path: Path) -> None:
    """A connection that ends costs no new listing."""
    changed = {"type": "MODIFIED", "object": node("gpu-1", 7, unschedulable=True)}
    async with scripted_api() as api:
        api.nodes = [node("gpu-1", 1)]
        api.watches = [[changed]]
        seen: list[str] = []

        def answer(request: Request) -> Response | None:
            if request.query_params.get("watch"):
                seen.append(request.query_params["resourceVersion"])
            return None

        api.answer = answer
        async with client_of(api, tmp_path, quiet_s=1.0) as client, cache_of(client) as cache:
            await until(lambda: list(cache.values()) == ["gpu-1 cordoned"])
            await until(lambda: len(seen) >= 3)
            assert seen[:3] == ["1", "7", "7"]
            assert api.lists == 1


async def test_a_watch_that_breaks_into_nonsense_is_taken_up_again(tmp_path: Path) -> None:
    """A proxy's error page in the middle of a stream costs what came after it, and no more."""
    changed = {"type": "MODIFIED", "object": node("gpu-1", 7, unschedulable=True)}
    async with scripted_api() as api:
        api.nodes = [node("gpu-1", 1)]
        api.watches = [[b"<html>\n", changed], [changed]]
        async with client_of(api, tmp_path) as client, cache_of(client) as cache:
            await until(lambda: list(cache.values()) == ["gpu-1 cordoned"])
            assert api.watches == []


@pytest.mark.trap("KU-06")
async def test_a_change_that_no_watch_told_is_found_and_counted(tmp_path: Path) -> None:
    """The resync: a watch that stays silent about changes cannot lie for ever."""
    async with scripted_api() as api:
        api.nodes = [node("gpu-1", 1), node("gpu-2", 2)]
        async with client_of(api, tmp_path, quiet_s=1.0) as client:
            client.settings = client.settings.model_copy(update={"resync_s": 0.5})
            async with cache_of(client) as cache:
                api.nodes = [node("gpu-1", 5, unschedulable=True)]
                await until(lambda: sorted(cache.values()) == ["gpu-1 cordoned"])
                assert cache.snapshot().missed == 2


async def test_a_cache_without_connection_grows_stale_and_keeps_its_values(tmp_path: Path) -> None:
    """Reads go on with their age; they are never shown as fresh."""
    async with scripted_api() as api:
        api.nodes = [node("gpu-1", 1)]
        async with (
            client_of(api, tmp_path, deadline_s=0.3, quiet_s=1.0) as client,
            cache_of(client) as cache,
        ):
            api.hanging = True
            await until(lambda: cache.snapshot().known is Known.STALE)
            assert list(cache.values()) == ["gpu-1"]
            assert cache.snapshot().why
            api.hanging = False
            api.hangs.set()
            await until(lambda: cache.snapshot().known is Known.FRESH, patience_s=40)


@pytest.mark.trap("KU-16")
async def test_an_object_that_cannot_be_read_is_named_not_dropped(tmp_path: Path) -> None:
    """A node of another shape is unknown, which is neither healthy nor gone."""
    async with scripted_api() as api:
        broken = node("gpu-2", 2)
        del broken["spec"]
        api.nodes = [node("gpu-1", 1), broken]
        async with client_of(api, tmp_path) as client, cache_of(client) as cache:
            assert sorted(cache.values()) == ["gpu-1"]
            assert cache.snapshot().unreadable == {"gpu-2": "KeyError: 'spec'"}


async def test_credentials_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    """Not at the first call, when somebody waits for it."""
    broken = tmp_path / "kubeconfig"
    broken.write_text("clusters: [")
    settings = ClusterSettings(kubeconfig=broken)
    with pytest.raises(InvalidRequestError, match="cannot be used"):
        async with KubeClient(settings, SystemClock(), field_manager="interlock"):
            pass


@pytest.mark.trap("KU-13")
async def test_an_object_without_a_record_of_its_writers_is_unknown_not_unwritten() -> None:
    """Nobody knows who else writes it; that is another answer than nobody."""
    path = ("spec", "unschedulable")
    assert writers_of(node("gpu-1", 1), path) is None
    entry = {"manager": "kubectl", "operation": "Update", "time": "2026-01-15T14:00:00Z"}
    record = node("gpu-1", 1)
    record["metadata"]["managedFields"] = [{**entry, "fieldsV1": {"f:spec": {"f:taints": {}}}}]
    assert writers_of(record, path) == ()
    record["metadata"]["managedFields"][0]["fieldsV1"] = {"f:spec": {"f:unschedulable": {}}}
    assert [writer.manager for writer in writers_of(record, path) or ()] == ["kubectl"]


@pytest.mark.trap("KU-15")
async def test_a_listing_that_outlives_its_snapshot_begins_anew(tmp_path: Path) -> None:
    """Half of one moment and half of another is no listing."""
    async with scripted_api() as api:
        api.nodes = [node("gpu-1", 1)]
        expired = [True]

        def answer(request: Request) -> Response | None:
            if request.url.path != "/api/v1/nodes" or request.query_params.get("watch"):
                return None
            if "continue" in request.query_params:
                expired.clear()
                return JSONResponse(status(410, "Expired", "too old"), status_code=410)
            if expired:
                about = {"resourceVersion": "1", "continue": "more"}
                first = {"kind": "NodeList", "metadata": about, "items": [node("gpu-0", 0)]}
                return JSONResponse(first)
            return None

        api.answer = answer
        async with client_of(api, tmp_path) as client, cache_of(client) as cache:
            assert sorted(cache.values()) == ["gpu-1"]
