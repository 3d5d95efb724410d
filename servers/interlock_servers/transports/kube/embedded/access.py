"""Who may do what: tokens, and RBAC evaluated from the roles and bindings in the store.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from interlock_servers.transports.kube.embedded.personas import MASTERS, Persona
from interlock_servers.transports.kube.embedded.statuses import ApiError, details_of, forbidden
from interlock_servers.transports.kube.embedded.store import Store, decode

Json = dict[str, Any]
_GROUP: Final = "rbac.authorization.k8s.io"
_KINDS: Final = ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
AUTHENTICATED: Final = "system:authenticated"


@dataclass(frozen=True)
class User:
    """Who a token belongs to."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Attributes:
    """What is asked to be done; `path` alone where it is no resource."""

    verb: str
    group: str = ""
    resource: str = ""  # with its subresource: `pods/eviction`
    namespace: str = ""
    name: str = ""
    path: str = ""


def first_roles() -> list[Json]:
    """The roles and bindings that every cluster starts with, as far as anyone here needs them."""
    reviews = {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        "verbs": ["create"],
    }
    paths = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/readyz",
        "/version",
        "/version/",
    ]
    everything: list[Json] = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]
    roles: tuple[tuple[str, str, list[Json]], ...] = (
        ("cluster-admin", MASTERS, everything),
        ("system:basic-user", AUTHENTICATED, [reviews]),
        ("system:discovery", AUTHENTICATED, [{"nonResourceURLs": paths, "verbs": ["get"]}]),
    )
    made: list[Json] = []
    for name, group, rules in roles:
        metadata = {"name": name}
        made.append(
            {
                "apiVersion": f"{_GROUP}/v1",
                "kind": "ClusterRole",
                "metadata": dict(metadata),
                "rules": rules,
            }
        )
        made.append(
            {
                "apiVersion": f"{_GROUP}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": dict(metadata),
                "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": _GROUP, "kind": "Group", "name": group}],
            }
        )
    return made


class Access:
    """Tokens and rules of one cluster."""

    def __init__(self, store: Store, tokens: Mapping[str, Persona]) -> None:
        self._store = store
        self._users = {
            token: User(persona.name, (*persona.groups, AUTHENTICATED))
            for token, persona in tokens.items()
        }
        self._read: tuple[int, dict[str, list[Json]]] = (-1, {})

    def user(self, authorization: str) -> User:
        """Whose token this is.

        Raises:
            ApiError: 401, nobody's.
        """
        scheme, _, token = authorization.partition(" ")
        found = self._users.get(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return found

    def check(self, user: User, wanted: Attributes) -> None:
        """Return where the user may do this.

        Raises:
            ApiError: 403, with the words of the API server.
        """
        if self.why(user, wanted) is not None:
            return
        who = f'User "{user.name}" cannot {wanted.verb}'
        if wanted.path:
            raise ApiError(
                403, "Forbidden", f'forbidden: {who} path "{wanted.path}"', details_of("", "")
            )
        where = (
            f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
        )
        raise forbidden(
            wanted.group,
            wanted.resource.partition("/")[0],
            wanted.name,
            f'{who} resource "{wanted.resource}" in API group "{wanted.group}" {where}',
        )

    def why(self, user: User, wanted: Attributes) -> str | None:
        """What lets the user do this; None where nothing does."""
        if MASTERS in user.groups:
            return ""
        for reason, rules in self._rules(user, wanted.namespace):
            if any(_allows(rule, wanted) for rule in rules):
                return f"RBAC: allowed by {reason}"
        return None

    def _rules(self, user: User, namespace: str) -> Iterator[tuple[str, Sequence[Json]]]:
        objects = self._objects()
        cluster = {each["metadata"]["name"]: each for each in objects["clusterroles"]}
        for binding in objects["clusterrolebindings"]:
            yield from _bound(binding, user, cluster, {}, "")
        if namespace:
            local = {
                each["metadata"]["name"]: each
                for each in objects["roles"]
                if each["metadata"]["namespace"] == namespace
            }
            for binding in objects["rolebindings"]:
                if binding["metadata"]["namespace"] == namespace:
                    yield from _bound(binding, user, cluster, local, namespace)

    def _objects(self) -> dict[str, list[Json]]:
        tables = {name: self._store.table(f"{_GROUP}/{name}") for name in _KINDS}
        seen = sum(len(table.log) + table.dropped for table in tables.values())
        if self._read[0] != seen:
            self._read = (
                seen,
                {
                    name: [decode(b"{", each) for each in table.entries.values()]
                    for name, table in tables.items()
                },
            )
        return self._read[1]


def _bound(
    binding: Json,
    user: User,
    cluster: Mapping[str, Json],
    local: Mapping[str, Json],
    namespace: str,
) -> Iterator[tuple[str, Sequence[Json]]]:
    ref = binding["roleRef"]
    role = (cluster if ref["kind"] == "ClusterRole" else local).get(ref["name"])
    if role is None:
        return
    for subject in binding.get("subjects") or ():
        kind, name = subject["kind"], subject["name"]
        if (kind == "User" and name == user.name) or (kind == "Group" and name in user.groups):
            bound = binding["metadata"]["name"]
            of = f'"{bound}/{namespace}"' if namespace else f'"{bound}"'
            what = "RoleBinding" if namespace else "ClusterRoleBinding"
            reason = f'{what} {of} of {ref["kind"]} "{ref["name"]}" to {kind} "{name}"'
            yield reason, role.get("rules") or ()
            return


def _allows(rule: Json, wanted: Attributes) -> bool:
    if not _has(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(
            each in ("*", wanted.path) or (each.endswith("*") and wanted.path.startswith(each[:-1]))
            for each in rule.get("nonResourceURLs") or ()
        )
    names = rule.get("resourceNames")
    if names and wanted.name not in names:
        return False
    resources = rule.get("resources") or ()
    subresource = wanted.resource.partition("/")[2]
    fits = _has(resources, wanted.resource) or (subresource and f"*/{subresource}" in resources)
    return bool(fits) and _has(rule.get("apiGroups"), wanted.group)


def _has(listed: Sequence[str] | None, value: str) -> bool:
    return listed is not None and ("*" in listed or value in listed)
