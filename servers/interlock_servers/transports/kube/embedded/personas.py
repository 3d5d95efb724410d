"""Who may call a cluster of tests or of the demo: names, tokens, kubeconfig files, RBAC objects."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MASTERS: Final = "system:masters"  # the group that RBAC is never asked about


@dataclass(frozen=True)
class Persona:
    """One caller: its user name, its groups, and the RBAC rules it is bound to cluster-wide."""

    name: str
    groups: tuple[str, ...] = ()
    rules: tuple[Mapping[str, Any], ...] = ()

    def rbac_objects(self) -> list[dict[str, Any]]:
        """The ClusterRole and the binding that give it its rules; none where it has none."""
        if not self.rules:
            return []
        api = "rbac.authorization.k8s.io"
        name = f"persona-{self.name}"
        role = {"apiGroup": api, "kind": "ClusterRole", "name": name}
        return [
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": name},
                "rules": [dict(rule) for rule in self.rules],
            },
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": role,
                "subjects": [{"apiGroup": api, "kind": "User", "name": self.name}],
            },
        ]


ADMIN: Final = Persona("admin", (MASTERS,))
READER: Final = Persona(
    "reader", rules=({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},)
)
NOBODY: Final = Persona("nobody")
PERSONAS: Final = (ADMIN, READER, NOBODY)


def write_kubeconfig(path: Path, url: str, token: str, ca_file: Path | None = None) -> Path:
    """A kubeconfig, in JSON (which is YAML), that only its owner can read; gives its path."""
    cluster: dict[str, Any] = {"server": url}
    if ca_file is not None:
        cluster["certificate-authority"] = str(ca_file)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "caller", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "caller"}}],
        "current-context": "local",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))
    return path
