"""What a Kubernetes API server promises of itself: that it is there, what it is, what it serves."""

import pytest

from tests.kube.asking import Kube, refused


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
async def test_it_says_that_it_is_well(kube: Kube, path: str) -> None:
    """In two letters."""
    answer = await kube.http.get(path)

    assert (answer.status_code, answer.text) == (200, "ok")


async def test_it_says_its_version(kube: Kube) -> None:
    """In numbers and in a word."""
    version = await kube.get("/version")
    major, minor = await kube.release()

    assert version["gitVersion"].startswith(f"v{major}.{minor}.")


async def test_it_says_its_groups_and_their_versions(kube: Kube) -> None:
    """The preferred one is said."""
    assert (await kube.get("/api"))["versions"] == ["v1"]
    listed = await kube.get("/apis")
    groups = {each["name"]: each for each in listed["groups"]}

    assert (listed["kind"], listed["apiVersion"]) == ("APIGroupList", "v1")
    assert groups["apps"]["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    named = {"batch", "policy", "coordination.k8s.io", "rbac.authorization.k8s.io"}
    assert named <= groups.keys()
    group = await kube.get("/apis/apps")
    assert (group["kind"], group["name"]) == ("APIGroup", "apps")


async def test_it_says_its_resources_and_what_is_done_to_them(kube: Kube) -> None:
    """Subresources are listed beside them."""
    core = await kube.get("/api/v1")
    listed = {each["name"]: each for each in core["resources"]}
    assert (core["kind"], core["groupVersion"]) == ("APIResourceList", "v1")
    assert not listed["nodes"]["namespaced"]
    assert set(listed["nodes"]["verbs"]) == {
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    }
    assert "deletecollection" not in listed["namespaces"]["verbs"]
    assert listed["pods/eviction"]["kind"] == "Eviction"
    assert listed["pods/eviction"]["group"] == "policy"
    assert listed["nodes/status"]["verbs"] == ["get", "patch", "update"]

    apps = {each["name"]: each for each in (await kube.get("/apis/apps/v1"))["resources"]}
    scale = apps["deployments/scale"]
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")


async def test_what_it_does_not_serve_is_not_there(kube: Kube) -> None:
    """A resource of a known version is told from a group that is unknown."""
    status = refused(await kube.http.get("/api/v1/zorks"), 404, "NotFound")
    assert status["message"] == "the server could not find the requested resource"
    refused(await kube.http.get("/apis/policy/v9"), 404, "NotFound")

    unknown = await kube.http.get("/apis/none.example/v1/zorks")
    assert (unknown.status_code, unknown.text) == (404, "404 page not found\n")
