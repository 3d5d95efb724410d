"""Evictions, and the budgets of disruption that can refuse them.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

import json
from collections.abc import Iterator
from typing import Any

from interlock_servers.transports.kube.embedded.requests import MERGE_PATCH, WriteOptions
from interlock_servers.transports.kube.embedded.resources import Resource
from interlock_servers.transports.kube.embedded.selectors import object_selector
from interlock_servers.transports.kube.embedded.statuses import ApiError, bad_request
from interlock_servers.transports.kube.embedded.store import Entry, Store, decode
from interlock_servers.transports.kube.embedded.writes import Writer

Json = dict[str, Any]
BUDGETS = "policy/poddisruptionbudgets"
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


def budgets_in(store: Store, namespace: str) -> Iterator[tuple[Entry, Json]]:
    """The budgets of a namespace."""
    for entry in store.table(BUDGETS).within(namespace):
        yield entry, decode(b"{", entry)


def is_ready(pod: Json) -> bool:
    """Whether a pod counts as healthy to a budget."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def evict(
    writer: Writer,
    store: Store,
    resources: tuple[Resource, Resource | None],
    key: tuple[str, str],
    body: Any,
    options: WriteOptions,
) -> Json:
    """The answer to an eviction that was allowed; the pod is being deleted.

    Args:
        writer: how the pod is deleted and the budget counted down.
        store: where budgets are looked up.
        resources: pods, and disruption budgets where they are served.
        key: namespace and name of the pod.
        body: the Eviction.
        options: how to write; a dry run asks the budget and changes nothing.

    Raises:
        ApiError: 404, no such pod; 429, a budget refuses for now; 500, two budgets cover it.
    """
    pods, budgets = resources
    metadata = body.get("metadata") or {} if isinstance(body, dict) else {}
    if metadata.get("name", key[1]) != key[1]:
        raise bad_request("name in URL does not match name in Eviction object")
    pod = writer.read(pods, key)
    ended = pod["status"].get("phase") in ("Succeeded", "Failed", "Pending")
    if not ended and "deletionTimestamp" not in pod["metadata"] and budgets is not None:
        _ask_budget(writer, store, budgets, pod, options)
    asked = dict(body.get("deleteOptions") or {}) if isinstance(body, dict) else {}
    dry_run = options.dry_run or "All" in (asked.get("dryRun") or ())
    writer.delete(pods, key, asked, dry_run=dry_run)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _ask_budget(
    writer: Writer, store: Store, budgets: Resource, pod: Json, options: WriteOptions
) -> None:
    labels = pod["metadata"].get("labels") or {}
    covering = [
        (entry, budget)
        for entry, budget in budgets_in(store, pod["metadata"]["namespace"])
        if object_selector(budget["spec"].get("selector"))(labels)
    ]
    if len(covering) > 1:
        message = (
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does "
            "not support."
        )
        raise ApiError(500, "InternalError", message)
    if not covering:
        return
    entry, budget = covering[0]
    name, status = entry.key[1], budget["status"]
    if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        said = f"The disruption budget {name} is still being processed by the server."
        raise _too_many(said, retryAfterSeconds=10)
    healthy, desired = status["currentHealthy"], status["desiredHealthy"]
    if not is_ready(pod) and healthy >= desired > 0:
        return  # it is not among those that the budget protects
    if status["disruptionsAllowed"] <= 0:
        raise _too_many(
            f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )
    disrupted = {**status.get("disruptedPods", {}), pod["metadata"]["name"]: writer.now()}
    patch = {
        "status": {
            "disruptionsAllowed": status["disruptionsAllowed"] - 1,
            "disruptedPods": disrupted,
        }
    }
    by = WriteOptions("kube-apiserver", dry_run=options.dry_run)
    writer.patch(budgets, entry.key, "status", MERGE_PATCH, json.dumps(patch).encode(), by)


def _too_many(said: str, **more: Any) -> ApiError:
    cause = {"reason": "DisruptionBudget", "message": said}
    return ApiError(429, "TooManyRequests", _REFUSED, {"causes": [cause], **more})
