"""What RBAC objects grant to a service account, and what our code says that it needs."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from interlock_servers.nvsentinel import access as nvsentinel
from interlock_servers.transports.kube.access import Access
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    LEASES,
    NODES,
    PODS,
    Kind,
)

NAMESPACE: Final = "interlock"
READS: Final[Mapping[str, tuple[Access, ...]]] = {"nvsentinel": nvsentinel.READS}
WRITES: Final[Mapping[str, tuple[Access, ...]]] = {"nvsentinel": nvsentinel.WRITES}
SITE: Final = "site"  # serves them all
ACCOUNTS: Final = (*READS, SITE)

_RBAC: Final = "rbac.authorization.k8s.io"
SECRETS: Final = Kind("", ("v1",), "secrets", "Secret", namespaced=True)
SERVICE_ACCOUNTS: Final = Kind("", ("v1",), "serviceaccounts", "ServiceAccount", namespaced=True)
CLUSTER_ROLES: Final = Kind(_RBAC, ("v1",), "clusterroles", "ClusterRole")
CLUSTER_BINDINGS: Final = Kind(_RBAC, ("v1",), "clusterrolebindings", "ClusterRoleBinding")
ROLES: Final = Kind(_RBAC, ("v1",), "roles", "Role", namespaced=True)
USERS: Final = Kind("", ("v1",), "users", "User")
GROUPS: Final = Kind("", ("v1",), "groups", "Group")
POLICIES: Final = Kind(
    "admissionregistration.k8s.io",
    ("v1",),
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
)

FORBIDDEN: Final = (
    *(Access(verb, SECRETS, space) for verb in ("get", "list") for space in ("", NAMESPACE)),
    Access("get", SECRETS, nvsentinel.NAMESPACE),
    Access("patch", NODES, subresource="status"),
    Access("update", NODES),
    Access("delete", NODES),
    Access("create", NODES, subresource="proxy"),
    *(Access(verb, PODS, NAMESPACE) for verb in ("create", "delete", "patch", "get")),
    *(Access("create", PODS, NAMESPACE, part) for part in ("exec", "eviction", "portforward")),
    Access("get", PODS, NAMESPACE, "log"),
    *(
        Access("patch", CONFIG_MAPS, nvsentinel.NAMESPACE, name=name)
        for name in (nvsentinel.RESUME, nvsentinel.QUARANTINE, "another", "")
    ),
    Access("patch", CONFIG_MAPS, NAMESPACE, name=nvsentinel.BREAKER),
    Access("get", CONFIG_MAPS, nvsentinel.NAMESPACE, name="another"),
    Access("list", CONFIG_MAPS, nvsentinel.NAMESPACE),
    Access("patch", DEPLOYMENTS, nvsentinel.NAMESPACE, name="janitor"),
    Access("patch", DEPLOYMENTS, nvsentinel.NAMESPACE, "scale", nvsentinel.QUARANTINE),
    Access("patch", DEPLOYMENTS, NAMESPACE, name=nvsentinel.QUARANTINE),
    Access("create", JOBS, nvsentinel.NAMESPACE),
    *(Access(verb, LEASES, nvsentinel.NAMESPACE) for verb in ("patch", "delete", "create")),
    *(
        Access(verb, kind)
        for kind in (nvsentinel.REBOOTS, nvsentinel.TERMINATIONS, nvsentinel.GPU_RESETS)
        for verb in ("delete", "patch", "update")
    ),
    Access("patch", nvsentinel.EXTERNAL_REPAIRS),
    *(Access(verb, CLUSTER_ROLES) for verb in ("create", "patch", "escalate", "bind")),
    *(Access(verb, ROLES, NAMESPACE) for verb in ("create", "escalate", "bind")),
    Access("create", CLUSTER_BINDINGS),
    *(Access("impersonate", kind) for kind in (USERS, GROUPS)),
    Access("impersonate", SERVICE_ACCOUNTS, NAMESPACE),
    Access("create", SERVICE_ACCOUNTS, NAMESPACE, "token", SITE),
    Access("delete", POLICIES),
)


class Right(NamedTuple):
    """One verb on one resource, as RBAC has it; an empty namespace is the whole cluster."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


def declared(account: str, *, writes: bool) -> set[Right]:
    """What the code says that this account needs."""
    servers = READS if account == SITE else [account]
    asked = [each for server in servers for each in READS[server]]
    if writes:
        asked += [each for server in servers for each in WRITES[server]]
    return {right_of(access) for access in asked}


def right_of(access: Access) -> Right:
    """The same, as RBAC writes it."""
    part = f"/{access.subresource}" if access.subresource else ""
    resource = access.kind.plural + part
    return Right(access.verb, access.kind.group, resource, access.namespace, access.name)


def granted(objects: Iterable[Mapping[str, Any]], account: str) -> set[Right]:
    """What the roles grant that are bound to this account.

    Raises:
        KeyError: a binding names a role that is not there.
    """
    found = list(objects)
    roles = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
        for each in found
        if each["kind"] in ("Role", "ClusterRole")
    }
    rights: set[Right] = set()
    for each in found:
        if each["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        if ("ServiceAccount", NAMESPACE, account) not in subjects(each):
            continue
        space = each["metadata"].get("namespace", "")
        ref = each["roleRef"]
        role = roles[ref["kind"], space if ref["kind"] == "Role" else "", ref["name"]]
        for rule in role["rules"]:
            rights |= expanded(rule, space)
    return rights


def subjects(binding: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Kind, namespace and name of each."""
    return {(s["kind"], s.get("namespace", ""), s["name"]) for s in binding["subjects"]}


def expanded(rule: Mapping[str, Any], namespace: str) -> set[Right]:
    """Each single right of a rule; an address that is no resource stands as one, too."""
    names = rule.get("resourceNames") or [""]
    rights = {
        Right(verb, group, resource, namespace, name)
        for verb in rule["verbs"]
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
        for name in names
    }
    for url in rule.get("nonResourceURLs") or ():
        rights |= {Right(verb, "", url, namespace, "") for verb in rule["verbs"]}
    return rights
