"""What a Kubernetes API server promises of ends: finalizers, grace, owners, namespaces."""

from typing import Any

from tests.kube.asking import Json, Kube, body, causes, eventually, pod, refused


async def test_what_is_deleted_is_gone_and_named(kube: Kube) -> None:
    """The Status says which object it was."""
    made = await kube.config_map("c")
    answer = body(await kube.http.delete(kube.at("configmaps", "c")))

    uid = made["metadata"]["uid"]
    assert answer["status"] == "Success"
    assert answer["details"] == {"name": "c", "kind": "configmaps", "uid": uid}
    refused(await kube.http.get(kube.at("configmaps", "c")), 404, "NotFound")
    refused(await kube.http.delete(kube.at("configmaps", "c")), 404, "NotFound")


async def test_a_finalizer_holds_an_object_until_it_is_taken_away(kube: Kube) -> None:
    """A controller has the time to clean up."""
    metadata = {"name": "c", "finalizers": ["test.example/hold"]}
    await kube.create("configmaps", {"metadata": metadata})
    path = kube.at("configmaps", "c")

    held = body(await kube.http.delete(path))
    assert held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    again = body(await kube.http.delete(path))
    assert again["metadata"]["resourceVersion"] == held["metadata"]["resourceVersion"]
    more = {"metadata": {"finalizers": ["test.example/hold", "test.example/more"]}}
    status = refused(await kube.patch(path, more), 422, "Invalid")
    assert causes(status) == {("FieldValueForbidden", "metadata.finalizers")}
    assert (await kube.patch(path, {"metadata": {"finalizers": None}})).status_code == 200
    refused(await kube.http.get(path), 404, "NotFound")


async def test_a_deletion_can_be_held_to_the_object_that_was_meant(kube: Kube) -> None:
    """Another of the same name stays."""
    made = await kube.config_map("c")
    path = kube.at("configmaps", "c")

    async def delete(**preconditions: Any) -> Any:
        return await kube.http.request("DELETE", path, json={"preconditions": preconditions})

    refused(await delete(uid="00000000-0000-0000-0000-000000000000"), 409, "Conflict")
    refused(await delete(resourceVersion="1"), 409, "Conflict")
    assert (await delete(uid=made["metadata"]["uid"])).status_code == 200


async def test_a_pod_on_a_node_ends_with_grace_and_one_without_at_once(kube: Kube) -> None:
    """The node's kubelet is the one that lets go of it."""
    await kube.create("pods", pod("placed", nodeName="none"))
    await kube.create("pods", pod("waiting"))
    ending = body(await kube.http.delete(kube.at("pods", "placed")))
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 30
    assert ending["metadata"]["deletionTimestamp"] > ending["metadata"]["creationTimestamp"]
    assert (await kube.http.delete(kube.at("pods", "waiting"))).status_code == 200
    assert "waiting" not in await kube.names(kube.at("pods"))

    done = await kube.http.delete(kube.at("pods", "placed"), params={"gracePeriodSeconds": 0})
    assert done.status_code == 200
    assert "placed" not in await kube.names(kube.at("pods"))


async def test_a_collection_is_deleted_as_far_as_it_matches(kube: Kube) -> None:
    """The rest is left."""
    for name, kept in (("a", "no"), ("b", "no"), ("c", "yes")):
        await kube.config_map(name, {"kept": kept})
    answer = await kube.http.delete(kube.at("configmaps"), params={"labelSelector": "kept=no"})

    assert answer.status_code == 200
    assert await kube.names(kube.at("configmaps")) == ["c"]


def owned(name: str, owner: Json) -> Json:
    """A ConfigMap that another one owns."""
    metadata = owner["metadata"]
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": True,
    }
    return {"metadata": {"name": name, "ownerReferences": [reference]}}


async def test_what_is_owned_goes_after_its_owner(kube: Kube) -> None:
    """All the way down, in the background."""
    top = await kube.config_map("top")
    middle = await kube.create("configmaps", owned("middle", top))
    await kube.create("configmaps", owned("leaf", middle))
    options = {"propagationPolicy": "Background"}
    answer = await kube.http.request("DELETE", kube.at("configmaps", "top"), json=options)
    assert body(answer)["status"] == "Success"

    async def empty() -> bool:
        return await kube.names(kube.at("configmaps")) == []

    await eventually(empty)


async def test_what_is_owned_can_go_before_its_owner(kube: Kube) -> None:
    """The owner waits, marked, until nothing of it is left."""
    top = await kube.config_map("top")
    held = owned("held", top)
    held["metadata"]["finalizers"] = ["test.example/hold"]
    await kube.create("configmaps", held)
    options = {"propagationPolicy": "Foreground"}
    answer = body(await kube.http.request("DELETE", kube.at("configmaps", "top"), json=options))
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def ending() -> bool:
        found = await kube.get(kube.at("configmaps", "held"))
        return "deletionTimestamp" in found["metadata"]

    await eventually(ending)
    assert "top" in await kube.names(kube.at("configmaps"))
    await kube.patch(kube.at("configmaps", "held"), {"metadata": {"finalizers": None}})

    async def empty() -> bool:
        return await kube.names(kube.at("configmaps")) == []

    await eventually(empty)


async def test_what_is_owned_can_stay(kube: Kube) -> None:
    """An orphan loses its owner and lives."""
    top = await kube.config_map("top")
    await kube.create("configmaps", owned("left", top))
    options = {"propagationPolicy": "Orphan"}
    await kube.http.request("DELETE", kube.at("configmaps", "top"), json=options)

    async def alone() -> bool:
        return await kube.names(kube.at("configmaps")) == ["left"]

    await eventually(alone)
    left = await kube.get(kube.at("configmaps", "left"))
    assert "ownerReferences" not in left["metadata"]


async def test_a_namespace_ends_with_everything_in_it(kube: Kube) -> None:
    """While it ends, nothing new is made there."""
    metadata = {"name": "c", "finalizers": ["test.example/hold"]}
    await kube.create("configmaps", {"metadata": metadata})
    path = f"/api/v1/namespaces/{kube.namespace}"
    ending = body(await kube.http.delete(path))
    assert ending["status"]["phase"] == "Terminating"

    late = await kube.http.post(kube.at("configmaps"), json={"metadata": {"name": "late"}})
    status = refused(late, 403, "Forbidden")
    assert causes(status) == {("NamespaceTerminating", "metadata.namespace")}

    async def marked() -> bool:
        found = await kube.get(kube.at("configmaps", "c"))
        return "deletionTimestamp" in found["metadata"]

    await eventually(marked)
    await kube.patch(kube.at("configmaps", "c"), {"metadata": {"finalizers": None}})

    async def gone() -> bool:
        return (await kube.http.get(path)).status_code == 404

    await eventually(gone)
