"""What a Kubernetes API server promises of patches and of scale."""

import pytest

from tests.kube.asking import (
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    Kube,
    body,
    causes,
    deployment,
    node,
    refused,
)


async def test_a_merge_patch_removes_what_is_null_and_replaces_lists(kube: Kube) -> None:
    """RFC 7386."""
    await kube.config_map("c", a="1", b="2")
    patched = await kube.patch(kube.at("configmaps", "c"), {"data": {"a": None, "c": "3"}}, MERGE)

    assert body(patched)["data"] == {"b": "2", "c": "3"}


async def test_a_json_patch_happens_only_where_its_test_holds(kube: Kube) -> None:
    """That is compare-and-set of one field."""
    await kube.config_map("c", a="1")
    path = kube.at("configmaps", "c")

    def swap(old: str) -> list[dict[str, str]]:
        return [
            {"op": "test", "path": "/data/a", "value": old},
            {"op": "replace", "path": "/data/a", "value": "2"},
        ]

    refused(await kube.patch(path, swap("0"), JSON_PATCH), 422, "Invalid")
    assert (await kube.get(path))["data"] == {"a": "1"}
    assert body(await kube.patch(path, swap("1"), JSON_PATCH))["data"] == {"a": "2"}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/data/none"},
        {"op": "replace", "path": "/none/a", "value": "1"},
        {"op": "test", "path": "/metadata/annotations/none", "value": "1"},
        {"op": "zap", "path": "/data/a"},
    ],
)
async def test_a_json_patch_of_what_is_not_there_is_refused(
    kube: Kube, operation: dict[str, str]
) -> None:
    """The whole patch is."""
    await kube.config_map("c", a="1")
    patch = [{"op": "add", "path": "/data/b", "value": "1"}, operation]
    refused(await kube.patch(kube.at("configmaps", "c"), patch, JSON_PATCH), 422, "Invalid")

    assert (await kube.get(kube.at("configmaps", "c")))["data"] == {"a": "1"}


async def test_a_json_patch_escapes_slashes(kube: Kube) -> None:
    """Annotations of real components have them."""
    await kube.config_map("c")
    patch = [
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/a.example~1b", "value": "1"},
    ]
    patched = body(await kube.patch(kube.at("configmaps", "c"), patch, JSON_PATCH))

    assert patched["metadata"]["annotations"] == {"a.example/b": "1"}


async def test_a_strategic_patch_merges_conditions_by_type_and_replaces_taints(kube: Kube) -> None:
    """Two writers of conditions do not erase each other; two writers of taints do."""
    name = kube.namespace
    await kube.http.post("/api/v1/nodes", json=node(name))
    path = f"/api/v1/nodes/{name}"

    def condition(kind: str, status: str) -> dict[str, object]:
        return {"status": {"conditions": [{"type": kind, "status": status}]}}

    await kube.patch(f"{path}/status", condition("GpuSmWatch", "True"), STRATEGIC)
    await kube.patch(f"{path}/status", condition("GpuMemWatch", "True"), STRATEGIC)
    seen = body(await kube.patch(f"{path}/status", condition("GpuSmWatch", "False"), STRATEGIC))
    by_type = {each["type"]: each["status"] for each in seen["status"]["conditions"]}
    assert {"GpuSmWatch": "False", "GpuMemWatch": "True"}.items() <= by_type.items()
    gone = {"status": {"conditions": [{"type": "GpuSmWatch", "$patch": "delete"}]}}
    left = body(await kube.patch(f"{path}/status", gone, STRATEGIC))
    kinds = {each["type"] for each in left["status"]["conditions"]}
    assert "GpuMemWatch" in kinds
    assert "GpuSmWatch" not in kinds

    def taint(key: str) -> dict[str, object]:
        return {"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}}

    await kube.patch(path, taint("a.example/x"), STRATEGIC)
    second = body(await kube.patch(path, taint("b.example/y"), STRATEGIC))
    keys = {each["key"] for each in second["spec"]["taints"]}
    assert "b.example/y" in keys
    assert "a.example/x" not in keys
    await kube.http.delete(path)


async def test_a_patch_of_an_unknown_kind_is_refused(kube: Kube) -> None:
    """Plain JSON is no patch."""
    await kube.config_map("c")
    answer = await kube.patch(kube.at("configmaps", "c"), {}, "application/json")

    refused(answer, 415, "UnsupportedMediaType")
    wrong = await kube.patch(kube.at("configmaps", "c"), {"a": 1}, JSON_PATCH)
    refused(wrong, 400, "BadRequest")


# Scaled


async def test_scale_is_one_number_for_every_kind(kube: Kube) -> None:
    """Whoever scales needs not know what."""
    await kube.create("deployments", deployment("d", paused=True))
    path = kube.at("deployments", "d", "scale")
    before = await kube.get(path)
    assert (before["kind"], before["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (before["spec"], before["status"]["selector"]) == ({"replicas": 1}, "app=d")

    assert body(await kube.patch(path, {"spec": {"replicas": 3}}))["spec"] == {"replicas": 3}
    after = await kube.get(kube.at("deployments", "d"))
    assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (3, 2)
    negative = await kube.patch(path, {"spec": {"replicas": -1}})
    assert causes(refused(negative, 422, "Invalid")) == {("FieldValueInvalid", "spec.replicas")}
    late = await kube.http.put(path, json={**before, "spec": {"replicas": 9}})
    refused(late, 409, "Conflict")


@pytest.mark.parametrize(
    ("method", "below"),
    [("POST", "/none"), ("PUT", ""), ("PATCH", ""), ("DELETE", "/none/status")],
)
async def test_a_method_that_does_not_apply_is_not_allowed(
    kube: Kube, method: str, below: str
) -> None:
    """It is neither missing nor forbidden."""
    answer = await kube.http.request(method, f"/api/v1/nodes{below}", json={})

    refused(answer, 405, "MethodNotAllowed")
