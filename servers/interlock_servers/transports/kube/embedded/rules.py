"""What the API server fills in and insists on for built-in kinds, as far as our components go.

Source: https://kubernetes.io/docs/reference/kubernetes-api/ (each field's default and rule).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from interlock_servers.transports.kube.embedded.names import check_label_name, check_labels
from interlock_servers.transports.kube.embedded.selectors import object_selector
from interlock_servers.transports.kube.embedded.statuses import Cause

Json = dict[str, Any]
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_POLICIES: Final = ("Always", "OnFailure", "Never")
_NODE_INFO: Final = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)
_POD_MAY_CHANGE: Final = ("containers", "initContainers", "activeDeadlineSeconds", "tolerations")
_WORKLOADS: Final = {"Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"}


def fill_in(kind: str, value: Json, *, new: bool) -> None:
    """Set, in place, the defaults of a kind; of a new object also its first status."""
    spec = value.get("spec")
    if kind == "Pod" and isinstance(spec, dict):
        _fill_pod(spec)
        _fill_tolerations(spec)
        if new:
            value["status"] = {"phase": "Pending", "qosClass": _quality(spec)}
    elif kind == "Node":
        value.setdefault("spec", {})
        if new:
            status = value.setdefault("status", {})
            status.setdefault("daemonEndpoints", {"kubeletEndpoint": {"Port": 0}})
            status.setdefault("nodeInfo", dict.fromkeys(_NODE_INFO, ""))
            taints = value["spec"].setdefault("taints", [])
            if not any(each.get("key") == "node.kubernetes.io/not-ready" for each in taints):
                taints.append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
    elif kind == "Namespace" and new:
        value["spec"] = {"finalizers": ["kubernetes"]}
        value["status"] = {"phase": "Active"}
        labels = value["metadata"].get("labels") or {}
        named = {"kubernetes.io/metadata.name": value["metadata"].get("name", "")}
        value["metadata"]["labels"] = {**labels, **named}
    elif kind == "PodDisruptionBudget" and new:
        counts = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
        value["status"] = dict.fromkeys(counts, 0)
    elif kind in _WORKLOADS and isinstance(spec, dict):
        _fill_workload(kind, spec)
        if new:
            value["status"] = {}
    elif kind == "Job" and isinstance(spec, dict):
        _fill_job(spec, value["metadata"])
        if new:
            value["status"] = {}


def _fill_pod(spec: Json) -> None:
    for name, default in (
        ("restartPolicy", "Always"),
        ("terminationGracePeriodSeconds", 30),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
        ("enableServiceLinks", True),
    ):
        spec.setdefault(name, default)
    spec.setdefault("securityContext", {})
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault(
            "imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent"
        )


def _fill_tolerations(spec: Json) -> None:
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerations = spec.setdefault("tolerations", [])
    for condition in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{condition}"
        if not any(each.get("key") in (key, None) for each in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )


def _quality(spec: Json) -> str:
    asked = [each.get("resources") or {} for each in spec.get("containers") or ()]
    if not any(each.get(side) for each in asked for side in ("limits", "requests")):
        return "BestEffort"
    exact = all(
        {"cpu", "memory"} <= (each.get("limits") or {}).keys()
        and each.get("requests", each["limits"]) == each["limits"]
        for each in asked
    )
    return "Guaranteed" if exact else "Burstable"


def _fill_workload(kind: str, spec: Json) -> None:
    if kind != "DaemonSet":
        spec.setdefault("replicas", 1)
    if kind == "Deployment":
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        strategy = spec.setdefault("strategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
    _fill_template(spec)


def _fill_job(spec: Json, metadata: Json) -> None:
    spec.setdefault("parallelism", 1)
    spec.setdefault("completions", 1)
    spec.setdefault("backoffLimit", 6)
    if not spec.get("manualSelector") and "selector" not in spec and "uid" in metadata:
        labels = {"controller-uid": metadata["uid"]}
        spec["selector"] = {"matchLabels": labels}
        inner = spec.setdefault("template", {}).setdefault("metadata", {})
        inner["labels"] = {**(inner.get("labels") or {}), **labels, "job-name": metadata["name"]}
    _fill_template(spec)


def _fill_template(spec: Json) -> None:
    inner = (spec.get("template") or {}).get("spec")
    if isinstance(inner, dict):
        _fill_pod(inner)
        inner.pop("enableServiceLinks", None)


def check(kind: str, value: Json, old: Json | None) -> Iterator[Cause]:
    """What is wrong with an object of a built-in kind; `old` is what it was before an update."""
    rule = _RULES.get(kind)
    if rule is not None:
        yield from rule(value, old)


def _check_pod(value: Json, old: Json | None) -> Iterator[Cause]:
    yield from _check_pod_spec(value.get("spec") or {}, "spec", _POLICIES)
    if old is not None and _fixed(value["spec"]) != _fixed(old["spec"]):
        yield Cause.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`, "
            "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds` or `spec.tolerations` "
            "(only additions to existing tolerations)",
        )


def _fixed(spec: Json) -> Json:
    fixed = {key: each for key, each in spec.items() if key not in _POD_MAY_CHANGE}
    for name in ("containers", "initContainers"):
        fixed[name] = [{**each, "image": ""} for each in spec.get(name) or ()]
    return fixed


def _check_pod_spec(spec: Json, path: str, policies: tuple[str, ...]) -> Iterator[Cause]:
    containers = spec.get("containers") or ()
    if not containers:
        yield Cause.required(f"{path}.containers")
    seen = set()
    for number, each in enumerate(containers):
        at = f"{path}.containers[{number}]"
        if not each.get("name"):
            yield Cause.required(f"{at}.name")
        else:
            yield from check_label_name(each["name"], f"{at}.name")
        if each.get("name") in seen:
            yield Cause(f"{at}.name", "FieldValueDuplicate", f'Duplicate value: "{each["name"]}"')
        seen.add(each.get("name"))
        if not each.get("image"):
            yield Cause.required(f"{at}.image")
    if spec.get("restartPolicy") not in policies:
        yield Cause.unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), policies)


def _check_node(value: Json, _: Json | None) -> Iterator[Cause]:
    seen = set()
    for number, taint in enumerate(value["spec"].get("taints") or ()):
        at = f"spec.taints[{number}]"
        if not taint.get("key"):
            yield Cause.required(f"{at}.key")
        if taint.get("effect") not in _EFFECTS:
            yield Cause.unsupported(f"{at}.effect", taint.get("effect", ""), _EFFECTS)
        same = (taint.get("key"), taint.get("effect"))
        if same in seen:
            said = "taints must be unique by key and effect pair"
            yield Cause(at, "FieldValueDuplicate", f"Duplicate value: {said}")
        seen.add(same)


def _check_workload(value: Json, old: Json | None) -> Iterator[Cause]:
    spec = value.get("spec") or {}
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        yield Cause.required("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield Cause.invalid("spec.selector", "{}", "empty selector is invalid")
    elif old is not None and old["spec"]["selector"] != selector:
        yield Cause.invalid("spec.selector", str(selector), "field is immutable")
    if not object_selector(selector)(labels):
        shown = ", ".join(f'"{k}":"{v}"' for k, v in sorted(labels.items()))
        yield Cause(
            "spec.template.metadata.labels",
            "FieldValueInvalid",
            f"Invalid value: map[string]string{{{shown}}}: `selector` does not match template "
            "`labels`",
        )
    yield from _at_least("spec.replicas", spec.get("replicas"), 0)
    yield from check_labels(labels, "spec.template.metadata.labels")
    yield from _check_pod_spec(template.get("spec") or {}, "spec.template.spec", ("Always",))


def _check_job(value: Json, old: Json | None) -> Iterator[Cause]:
    spec = value.get("spec") or {}
    if old is not None and old["spec"].get("template") != spec.get("template"):
        yield Cause.invalid("spec.template", "{}", "field is immutable")
    inner = (spec.get("template") or {}).get("spec") or {}
    yield from _check_pod_spec(inner, "spec.template.spec", ("OnFailure", "Never"))
    for name in ("parallelism", "completions", "backoffLimit"):
        yield from _at_least(f"spec.{name}", spec.get(name), 0)


def _check_budget(value: Json, _: Json | None) -> Iterator[Cause]:
    spec = value.get("spec") or {}
    if "minAvailable" in spec and "maxUnavailable" in spec:
        yield Cause.invalid("spec", "{}", "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        amount = spec.get(name)
        if isinstance(amount, str):
            if not (amount.endswith("%") and amount[:-1].isdigit() and int(amount[:-1]) <= 100):
                yield Cause.invalid(
                    f"spec.{name}",
                    amount,
                    "a valid percent string must be a numeric string followed by an ending '%'",
                )
        else:
            yield from _at_least(f"spec.{name}", amount, 0)


def _check_lease(value: Json, _: Json | None) -> Iterator[Cause]:
    spec = value.get("spec") or {}
    lasts_s = spec.get("leaseDurationSeconds")
    if lasts_s is not None and lasts_s <= 0:
        yield Cause.invalid("spec.leaseDurationSeconds", lasts_s, "must be greater than 0")
    yield from _at_least("spec.leaseTransitions", spec.get("leaseTransitions"), 0)


def _check_event(value: Json, _: Json | None) -> Iterator[Cause]:
    about = (value.get("involvedObject") or {}).get("namespace", "")
    namespace = value["metadata"].get("namespace", "")
    if about != namespace and (about or namespace != "default"):
        yield Cause.invalid("involvedObject.namespace", about, "does not match event.namespace")


def _check_binding(value: Json, old: Json | None) -> Iterator[Cause]:
    ref = value.get("roleRef") or {}
    if old is not None and old["roleRef"] != ref:
        yield Cause.invalid("roleRef", str(ref), "cannot change roleRef")
    if not ref.get("name"):
        yield Cause.required("roleRef.name")
    if ref.get("kind") not in ("Role", "ClusterRole"):
        yield Cause.unsupported("roleRef.kind", ref.get("kind", ""), ("Role", "ClusterRole"))


def _check_role(value: Json, _: Json | None) -> Iterator[Cause]:
    for number, rule in enumerate(value.get("rules") or ()):
        if not rule.get("verbs"):
            yield Cause.required(f"rules[{number}].verbs", "verbs must contain at least one value")
        if not rule.get("nonResourceURLs"):
            for name in ("apiGroups", "resources"):
                if not rule.get(name):
                    says = (
                        "resource rules must supply at least one api group"
                        if name == "apiGroups"
                        else "resource rules must supply at least one resource"
                    )
                    yield Cause.required(f"rules[{number}].{name}", says)


def _at_least(path: str, amount: object, least: int) -> Iterator[Cause]:
    if isinstance(amount, int) and amount < least:
        yield Cause.invalid(path, amount, f"must be greater than or equal to {least}")


Rule = Callable[[Json, Json | None], Iterator[Cause]]
_RULES: Final[Mapping[str, Rule]] = {
    "Pod": _check_pod,
    "Node": _check_node,
    "Deployment": _check_workload,
    "ReplicaSet": _check_workload,
    "StatefulSet": _check_workload,
    "DaemonSet": _check_workload,
    "Job": _check_job,
    "PodDisruptionBudget": _check_budget,
    "Lease": _check_lease,
    "Event": _check_event,
    "RoleBinding": _check_binding,
    "ClusterRoleBinding": _check_binding,
    "Role": _check_role,
    "ClusterRole": _check_role,
}
