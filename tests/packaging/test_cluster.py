"""Every object on a real API server, and what the accounts may do there, asked as they."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from interlock_servers.nvsentinel import access as nvsentinel
from interlock_servers.transports.kube.access import refused
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.embedded.personas import ADMIN, write_kubeconfig
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    NAMESPACES,
    NODES,
    Kind,
)
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ComponentError, FactoryError, NotFoundError
from tests.kube.real import Cluster, running_cluster, why_not
from tests.packaging.kustomize import NAMES, OVERLAYS, Json, key_of, rendered
from tests.packaging.rights import (
    ACCOUNTS,
    CLUSTER_BINDINGS,
    CLUSTER_ROLES,
    FORBIDDEN,
    NAMESPACE,
    POLICIES,
    READS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    WRITES,
    Right,
    declared,
    expanded,
)

POLICY_GROUP: Final = "admissionregistration.k8s.io"
POLICY_BINDINGS: Final = Kind(
    POLICY_GROUP, ("v1",), "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"
)
RULES_REVIEWS: Final = Kind(
    "authorization.k8s.io", ("v1",), "selfsubjectrulesreviews", "SelfSubjectRulesReview"
)
APPLIED: Final = (
    NAMESPACES,
    SERVICE_ACCOUNTS,
    CLUSTER_ROLES,
    CLUSTER_BINDINGS,
    ROLES,
    Kind(ROLES.group, ("v1",), "rolebindings", "RoleBinding", namespaced=True),
    CONFIG_MAPS,
    Kind("", ("v1",), "persistentvolumeclaims", "PersistentVolumeClaim", namespaced=True),
    Kind("", ("v1",), "services", "Service", namespaced=True),
    Kind("networking.k8s.io", ("v1",), "networkpolicies", "NetworkPolicy", namespaced=True),
    DISRUPTION_BUDGETS,
    DEPLOYMENTS,
    POLICIES,
    POLICY_BINDINGS,
)
KINDS: Final = {kind.kind: kind for kind in APPLIED}
NEEDS_1_30: Final = {POLICIES.kind, POLICY_BINDINGS.kind}
# Of everybody whom the server knows (its role system:basic-user).
EVERYBODY: Final = {
    Right("create", "authorization.k8s.io", f"selfsubject{what}reviews", "", "")
    for what in ("access", "rules")
}
NODE: Final = "gpu-1"


@dataclass(frozen=True)
class Deployed:
    """A cluster that an overlay was applied to; `answers`: what the server made of it."""

    overlay: str
    cluster: Cluster
    folder: Path
    answers: dict[tuple[str, str, str], Json]
    unserved: set[str]

    @property
    def writes(self) -> bool:
        """Whether the overlay grants them."""
        return self.overlay != "read-only"

    @asynccontextmanager
    async def as_account(self, account: str) -> AsyncIterator[KubeClient]:
        """A client with a token that the server gave for this service account."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        async with self.cluster.client() as admin:
            answer = (await admin.post(path, json=wanted)).raise_for_status().json()
        kubeconfig = write_kubeconfig(
            self.folder / f"{account}.kubeconfig",
            self.cluster.url,
            answer["status"]["token"],
            self.cluster.ca_file,
        )
        async with client_of(kubeconfig) as client:
            yield client


def client_of(kubeconfig: Path) -> KubeClient:
    """A client with the credentials of this file."""
    settings = ClusterSettings(kubeconfig=kubeconfig)
    return KubeClient(settings, SystemClock(), field_manager="packaging")


@pytest.fixture(scope="module", params=NAMES)
async def deployed(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployed]:
    """A cluster with NVSentinel's namespace, and every object of an overlay that it serves."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("deployed")
    answers: dict[tuple[str, str, str], Json] = {}
    unserved: set[str] = set()
    async with running_cluster(folder / "cluster", personas=(ADMIN,)) as cluster:
        async with client_of(cluster.kubeconfig) as admin:
            await admin.create(NAMESPACES, {"metadata": {"name": nvsentinel.NAMESPACE}})
            await admin.create(NODES, {"metadata": {"name": NODE, "labels": {"rack": "r1"}}})
            for each in rendered(OVERLAYS / request.param):
                kind = KINDS[each["kind"]]
                body = {key: value for key, value in each.items() if key != "apiVersion"}
                space = each["metadata"].get("namespace")
                try:
                    answers[key_of(each)] = await admin.apply(kind, body, namespace=space)
                except NotFoundError:
                    unserved.add(each["kind"])
        yield Deployed(request.param, cluster, folder, answers, unserved)


async def test_the_server_takes_every_object_and_keeps_every_field(deployed: Deployed) -> None:
    """A field that it does not know would be dropped. What needs 1.30 is left out before."""
    objects = rendered(OVERLAYS / deployed.overlay)

    assert deployed.unserved in (set(), NEEDS_1_30 if deployed.writes else set())
    for each in objects:
        if each["kind"] in deployed.unserved:
            continue
        sent = {key: value for key, value in each.items() if key != "apiVersion"}
        assert lost(sent, deployed.answers[key_of(each)]) == []


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_an_account_may_do_what_its_server_needs(deployed: Deployed, account: str) -> None:
    """The server itself says so, to a token of the account."""
    servers = READS if account == "site" else [account]
    reads = [each for server in servers for each in READS[server]]
    writes = [each for server in servers for each in WRITES[server]]
    async with deployed.as_account(account) as client:
        assert await refused(client, reads) == {}
        assert set(await refused(client, writes)) == (set() if deployed.writes else set(writes))


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_an_account_may_do_nothing_that_is_forbidden(
    deployed: Deployed, account: str
) -> None:
    """Secrets, more of nodes and pods than is needed, and every way to more rights."""
    async with deployed.as_account(account) as client:
        assert set(await refused(client, FORBIDDEN)) == set(FORBIDDEN)


@pytest.mark.parametrize(
    "namespace", [nvsentinel.NAMESPACE, nvsentinel.EVENTS_NAMESPACE, NAMESPACE, "kube-system"]
)
async def test_the_server_lists_no_other_right_of_an_account(
    deployed: Deployed, namespace: str
) -> None:
    """Whoever bound it to something else, it would show here."""
    for account in ACCOUNTS:
        async with deployed.as_account(account) as client:
            review = {"spec": {"namespace": namespace}}
            status = (await client.create(RULES_REVIEWS, review))["status"]
        listed = set[Right]().union(*(expanded(rule, "") for rule in status["resourceRules"]))
        wanted = {
            right._replace(namespace="")
            for right in declared(account, writes=deployed.writes)
            if right.namespace in ("", namespace)
        }

        assert not status["incomplete"]
        assert listed - EVERYBODY == wanted


async def test_a_call_is_answered_as_the_review_said(deployed: Deployed) -> None:
    """A review is a promise; these are calls."""
    async with deployed.as_account("nvsentinel") as client:
        node = await client.get(NODES, NODE)
        cordon = [{"op": "add", "path": "/spec/unschedulable", "value": True}]

        assert await refusal(client.all(SECRETS)) == "FORBIDDEN"
        assert await refusal(client.delete(NODES, NODE, seen=node)) == "FORBIDDEN"
        patched = client.patch(NODES, NODE, cordon, seen=node)
        assert await refusal(patched) == (None if deployed.writes else "FORBIDDEN")


async def test_of_a_node_only_three_fields_may_be_changed(deployed: Deployed) -> None:
    """RBAC cannot say it; the admission policy does."""
    if not deployed.writes:
        pytest.skip("this overlay changes no node")
    if deployed.unserved:
        pytest.skip("this API server has no ValidatingAdmissionPolicy: that needs 1.30")
    taint = {"key": "ours", "effect": "NoExecute"}
    opt_out = "/metadata/labels/k8saas.nvidia.com~1ManagedByNVSentinel"
    async with deployed.as_account("nvsentinel") as client:
        for allowed in (
            {"op": "add", "path": "/spec/unschedulable", "value": True},
            {"op": "add", "path": opt_out, "value": "false"},
            {"op": "remove", "path": opt_out},
            {"op": "add", "path": "/metadata/annotations", "value": {"interlock/change": "chg-1"}},
        ):
            await client.patch(NODES, NODE, [allowed], seen=await client.get(NODES, NODE))
        for denied in (
            {"op": "add", "path": "/metadata/labels/rack", "value": "r2"},
            {"op": "add", "path": "/metadata/labels/new", "value": "x"},
            {"op": "remove", "path": "/metadata/labels/rack"},
            {"op": "add", "path": "/metadata/annotations", "value": {"x": "y"}},
            {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/x"]},
            {"op": "add", "path": "/spec/taints", "value": [taint]},
            {"op": "add", "path": "/spec/providerID", "value": "x://y"},
        ):
            seen = await client.get(NODES, NODE)
            with pytest.raises(FactoryError):
                await client.patch(NODES, NODE, [denied], seen=seen)


async def refusal(call: Any) -> str | None:
    """The code that a call is refused with; None where it is not."""
    try:
        await call
    except ComponentError as error:
        return error.code
    return None


def lost(sent: Any, kept: Any, where: str = "") -> list[str]:
    """What was sent and is not there any more, or another value."""
    if isinstance(sent, dict):
        if not isinstance(kept, dict):
            return [where]
        return [path for key in sent for path in lost(sent[key], kept.get(key), f"{where}.{key}")]
    if isinstance(sent, list):
        if not isinstance(kept, list) or len(kept) != len(sent):
            return [where]
        pairs = enumerate(zip(sent, kept, strict=True))
        return [path for number, (a, b) in pairs for path in lost(a, b, f"{where}[{number}]")]
    return [] if sent == kept else [where]
