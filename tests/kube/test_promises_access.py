"""What a Kubernetes API server promises of callers: tokens, RBAC, and being asked about both."""

from typing import Any

import httpx2
import pytest

from tests.kube.asking import RBAC, Json, Kube, body, deployment, refused

REVIEWS = "/apis/authorization.k8s.io/v1"


async def test_a_token_that_is_unknown_is_nobodys(kube: Kube) -> None:
    """401 says nothing else."""
    headers = {"Authorization": "Bearer unknown"}
    status = refused(await kube.http.get("/api/v1/nodes", headers=headers), 401, "Unauthorized")

    assert status["message"] == "Unauthorized"


@pytest.mark.parametrize(
    ("method", "path", "message", "details"),
    [
        (
            "GET",
            "/api/v1/nodes",
            'nodes is forbidden: User "nobody" cannot list resource "nodes" in API group "" at '
            "the cluster scope",
            {"kind": "nodes"},
        ),
        (
            "GET",
            "/api/v1/namespaces/default/pods/p",
            'pods "p" is forbidden: User "nobody" cannot get resource "pods" in API group "" in '
            'the namespace "default"',
            {"name": "p", "kind": "pods"},
        ),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/default/deployments/d/scale",
            'deployments.apps "d" is forbidden: User "nobody" cannot patch resource '
            '"deployments/scale" in API group "apps" in the namespace "default"',
            {"name": "d", "group": "apps", "kind": "deployments"},
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps",
            'configmaps is forbidden: User "nobody" cannot deletecollection resource "configmaps" '
            'in API group "" in the namespace "default"',
            {"kind": "configmaps"},
        ),
    ],
)
async def test_a_refusal_says_who_may_not_do_what(
    kube: Kube, method: str, path: str, message: str, details: Json
) -> None:
    """It is the same whether the object is there or not."""
    async with kube.server.client("nobody") as nobody:
        status = refused(await nobody.request(method, path), 403, "Forbidden")

    assert status["message"] == message
    assert status["details"] == details


async def test_everybody_may_discover(kube: Kube) -> None:
    """And nothing else."""
    async with kube.server.client("nobody") as nobody:
        for path in ("/version", "/healthz", "/api", "/apis", "/api/v1", "/apis/apps/v1"):
            assert (await nobody.get(path)).status_code == 200
        status = refused(await nobody.get("/metrics"), 403, "Forbidden")

    assert status["message"] == 'forbidden: User "nobody" cannot get path "/metrics"'


async def test_a_reader_reads_and_does_not_write(kube: Kube) -> None:
    """Not even as a dry run."""
    await kube.config_map("c")
    path = kube.at("configmaps", "c")
    async with kube.server.client("reader") as reader:
        assert (await reader.get(path)).status_code == 200
        assert (await reader.get("/api/v1/nodes")).status_code == 200
        tried = await reader.delete(path, params={"dryRun": "All"})
        refused(tried, 403, "Forbidden")
        refused(await reader.post(kube.at("configmaps"), json={}), 403, "Forbidden")


async def grant(kube: Kube, *rules: Json) -> None:
    """Let nobody do this in the test's namespace."""
    await kube.create("roles", {"metadata": {"name": "r"}, "rules": list(rules)})
    api = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": api, "kind": "User", "name": "nobody"}],
    }
    await kube.create("rolebindings", binding)


async def test_a_role_lets_do_what_it_says_where_it_is_and_no_more(kube: Kube) -> None:
    """By verb, by name, by subresource, by namespace."""
    await kube.config_map("mine")
    await kube.config_map("other")
    await kube.create("deployments", deployment("d"))
    await grant(
        kube,
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["mine"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"]},
    )

    async def until_allowed(http: httpx2.AsyncClient) -> int:
        code = 403
        for _ in range(100):  # a real server hears of roles by its own watch
            code = (await http.get(kube.at("configmaps", "mine"))).status_code
            if code != 403:
                break
        return code

    async with kube.server.client("nobody") as nobody:
        assert await until_allowed(nobody) == 200
        for path in (
            kube.at("configmaps", "other"),
            kube.at("configmaps"),
            kube.at("deployments", "d"),
            "/api/v1/namespaces/default/configmaps/mine",
        ):
            refused(await nobody.get(path), 403, "Forbidden")
        assert (await nobody.get(kube.at("deployments", "d", "scale"))).status_code == 200
        narrowed = {"fieldSelector": "metadata.name=mine"}
        listed = body(await nobody.get(kube.at("configmaps"), params=narrowed))
        assert [one["metadata"]["name"] for one in listed["items"]] == ["mine"]
        wider = {"fieldSelector": "metadata.name!=other"}
        refused(await nobody.get(kube.at("configmaps"), params=wider), 403, "Forbidden")
        refused(await nobody.delete(kube.at("configmaps", "mine")), 403, "Forbidden")


async def test_a_caller_can_ask_what_it_may_do(kube: Kube) -> None:
    """Before it tries."""

    async def may(persona: str, **asks: str) -> Any:
        async with kube.server.client(persona) as http:
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asks},
            }
            answer = await http.post(f"{REVIEWS}/selfsubjectaccessreviews", json=review)
            assert answer.status_code == 201, answer.text
            return body(answer)["status"]

    assert (await may("nobody", verb="list", resource="nodes"))["allowed"] is False
    allowed = await may("reader", verb="list", resource="nodes")
    assert allowed["allowed"] is True
    assert allowed["reason"] == (
        'RBAC: allowed by ClusterRoleBinding "persona-reader" of ClusterRole "persona-reader" to '
        'User "reader"'
    )
    evicts = {"verb": "create", "resource": "pods", "subresource": "eviction"}
    assert (await may("reader", **evicts, namespace="default"))["allowed"] is False
    assert (await may("admin", **evicts, namespace="default"))["allowed"] is True


async def test_an_administrator_can_ask_about_others(kube: Kube) -> None:
    """Others cannot."""
    asks = {"user": "reader", "resourceAttributes": {"verb": "list", "resource": "nodes"}}
    review = {"spec": asks}
    path = f"{REVIEWS}/subjectaccessreviews"
    assert body(await kube.http.post(path, json=review))["status"]["allowed"] is True

    async with kube.server.client("nobody") as nobody:
        refused(await nobody.post(path, json=review), 403, "Forbidden")


async def test_a_binding_keeps_its_role(kube: Kube) -> None:
    """Who may bind may not thereby raise others."""
    await grant(kube, {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
    path = f"{RBAC}/namespaces/{kube.namespace}/rolebindings/b"
    answer = await kube.patch(path, {"roleRef": {"name": "other"}})

    refused(answer, 422, "Invalid")
