"""The real cluster of the tests: how it is found, what it brings, and that it ends."""

from datetime import timedelta
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.kube.asking import eventually, pod
from tests.kube.real import (
    VARIABLE,
    Cluster,
    ClusterError,
    real_server_or_skip,
    running_cluster,
)

RAN_OUT_S = 90.0


def test_without_the_variable_tests_skip_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a missing server would fail."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.skip.Exception, match=f"{VARIABLE} is not set"):
        real_server_or_skip()


def test_missing_binaries_fail_where_tests_are_gated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And skip on the machine of someone who has half of them."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="lacks etcd, kube-apiserver"):
        real_server_or_skip()

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="lacks etcd, kube-apiserver"):
        real_server_or_skip()


async def test_a_program_that_does_not_run_is_said_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody has to look for its log."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (binaries / name).write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
        (binaries / name).chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(binaries))

    with pytest.raises(ClusterError, match="etcd ended with 3; no such luck"):
        async with running_cluster(tmp_path / "cluster"):
            pass


async def test_each_persona_has_a_kubeconfig_that_only_its_owner_can_read(
    real_cluster: Cluster,
) -> None:
    """It holds a token."""
    assert (
        set(real_cluster.kubeconfigs) == set(real_cluster.tokens) == {"admin", "reader", "nobody"}
    )
    for path in real_cluster.kubeconfigs.values():
        assert path.stat().st_mode & 0o077 == 0


async def test_a_forgetful_cluster_ends_a_watch_with_410_and_nothing_of_it_is_left(
    tmp_path: Path,
) -> None:
    """Compaction really takes the past away, and the server says so on the stream."""
    real_server_or_skip()
    async with (
        running_cluster(tmp_path, compaction=timedelta(seconds=2)) as cluster,
        cluster.client() as admin,
    ):
        url = "/api/v1/namespaces/default/configmaps"
        listed = (await admin.get(url)).json()["metadata"]["resourceVersion"]
        options = {"watch": "1", "resourceVersion": listed, "timeoutSeconds": "1"}

        async def forgotten() -> bool:
            await admin.patch(
                "/api/v1/namespaces/default",
                json={"metadata": {"annotations": {"now": str(anyio.current_time())}}},
                headers={"Content-Type": "application/merge-patch+json"},
            )
            said = (await admin.get(url, params=options)).text
            return '"type":"ERROR"' in said and '"code":410' in said

        with anyio.fail_after(RAN_OUT_S):
            while not await forgotten():  # noqa: ASYNC110 (etcd tells nobody)
                await anyio.sleep(0.5)
    for url in (cluster.url, cluster.etcd_url):
        async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
            with pytest.raises(httpx2.ConnectError):
                await http.get(url)


async def test_pods_are_scheduled_and_run_on_hollow_nodes(tmp_path: Path) -> None:
    """A cordoned one gets none."""
    real_server_or_skip(nodes=2)
    labels = {"nvidia.com/gpu.product": "H100"}
    async with (
        running_cluster(tmp_path, nodes=2, node_labels=labels) as cluster,
        cluster.client() as admin,
    ):
        nodes = (await admin.get("/api/v1/nodes")).json()["items"]
        assert [each["metadata"]["name"] for each in nodes] == ["hollow-0", "hollow-1"]
        assert {e["metadata"]["labels"]["nvidia.com/gpu.product"] for e in nodes} == {"H100"}
        cordoned = await admin.patch(
            "/api/v1/nodes/hollow-0",
            json={"spec": {"unschedulable": True}},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert cordoned.status_code == 200
        url = "/api/v1/namespaces/default/pods"
        assert (await admin.post(url, json=pod("p"))).status_code == 201

        async def runs() -> bool:
            found = (await admin.get(f"{url}/p")).json()
            return bool(found["status"]["phase"] == "Running")

        await eventually(runs)
        assert (await admin.get(f"{url}/p")).json()["spec"]["nodeName"] == "hollow-1"
