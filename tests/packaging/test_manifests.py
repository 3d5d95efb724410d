"""What the manifests are, read as they are rendered."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from interlock_console.settings import load
from tests.packaging.kustomize import (
    NAMES,
    OVERLAYS,
    Json,
    only,
    rendered,
    without_digests,
)

ROOT: Final = Path(__file__).parents[2]
HOW_TO: Final = ROOT / "docs" / "how-to" / "kubernetes.md"
DEFAULT_PORTS: Final = {"https": 443, "mqtts": 8883}
DNS_PORT, API_SERVER_PORTS, POSTGRESQL_PORT = 53, {443, 6443}, 5432
KUBECTL_S: Final = 60


@pytest.fixture(params=NAMES)
def overlay(request: pytest.FixtureRequest) -> str:
    """Each overlay in turn."""
    return str(request.param)


@pytest.fixture
def objects(overlay: str) -> list[Json]:
    """What it renders to."""
    return rendered(OVERLAYS / overlay)


@pytest.fixture
def pod(objects: list[Json]) -> Json:
    """The pod of its Deployment."""
    found: Json = only(objects, "Deployment")["spec"]["template"]["spec"]
    return found


def by_kubectl(folder: Path) -> list[Json]:
    """What kubectl renders; skipped where there is none."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here (Debian: kubernetes-client)")
    done = subprocess.run(  # noqa: S603 (a folder of ours)
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=KUBECTL_S
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def containers(pod: Json) -> Iterator[Json]:
    """Those that prepare, too."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def test_kubectl_renders_what_these_tests_read(overlay: str, objects: list[Json]) -> None:
    """Otherwise they would prove something about another set of objects than people apply."""
    assert without_digests(by_kubectl(OVERLAYS / overlay)) == without_digests(objects)


def test_the_overlay_of_a_site_of_its_own_renders_as_the_page_says(tmp_path: Path) -> None:
    """Its image and its settings take the place of ours, and nothing else changes."""
    own = tmp_path / "hall-1"
    shutil.copytree(OVERLAYS.parent, tmp_path / "interlock" / "packaging" / "kubernetes")
    own.mkdir()
    (block,) = re.findall(r"```yaml\n(bases:.*?)```", HOW_TO.read_text(), re.DOTALL)
    (own / "kustomization.yaml").write_text(block)
    (own / "interlock.toml").write_text('bundle = "observe"\n')
    theirs, ours = without_digests(by_kubectl(own)), without_digests(rendered(OVERLAYS / "guarded"))
    settings, deployment = (
        ("ConfigMap", "interlock", "interlock"),
        ("Deployment", "interlock", "interlock"),
    )

    assert theirs.keys() == ours.keys()
    assert {key for key in ours if theirs[key] != ours[key]} == {settings, deployment}
    assert theirs[settings]["data"] == {"interlock.toml": 'bundle = "observe"\n'}
    image = only([theirs[deployment]], "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert image["image"].startswith("registry.example.com/")


def test_no_container_can_become_more_than_it_is(pod: Json) -> None:
    """The `restricted` level of Pod Security, and a root filesystem that nobody writes to."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001  # as the image's Containerfile has it
    assert "useradd --system --uid 10001" in (ROOT / "packaging" / "Containerfile").read_text()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_what_is_written_lies_on_a_volume(overlay: str, pod: Json) -> None:
    """The root filesystem takes nothing."""
    settings = load(OVERLAYS / overlay / "interlock.toml")
    (container,) = pod["containers"]
    writable = {
        mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")
    }

    assert writable == {str(settings.data_dir), "/tmp"}  # noqa: S108 (the pod's own)


def test_one_sqlite_store_has_one_process_and_a_volume_that_keeps_its_keys_private(
    objects: list[Json], overlay: str, pod: Json
) -> None:
    """At each start the kubelet would let the group read the keys, which are then refused."""
    spec = only(objects, "Deployment")["spec"]
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    if "postgresql" in overlay:
        assert spec["replicas"] > 1
        assert not claims
        return
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    assert claims == [{"claimName": only(objects, "PersistentVolumeClaim")["metadata"]["name"]}]
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_secrets_are_named_and_never_held(objects: list[Json], pod: Json) -> None:
    """Whoever reads the manifests learns none."""
    assert not [each for each in objects if each["kind"] == "Secret"]
    for container in containers(pod):
        assert all(set(each) == {"name", "valueFrom"} for each in container.get("env", ()))
    document = tomllib.loads(only(objects, "ConfigMap")["data"]["interlock.toml"])
    secret = {key for key in keys_of(document) if re.search("password|token|secret|key", key)}
    assert secret <= {"password_file"}


def test_an_account_gets_no_token_by_itself(objects: list[Json], pod: Json) -> None:
    """Another pod that runs as one of them has to say that it wants its rights."""
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]

    assert all(each["automountServiceAccountToken"] is False for each in accounts)
    assert pod["serviceAccountName"] in {each["metadata"]["name"] for each in accounts}
    assert pod["automountServiceAccountToken"] is True


def test_the_network_is_closed_but_for_what_the_settings_reach(
    objects: list[Json], overlay: str, pod: Json
) -> None:
    """A port that is missing here is a bus that is silent there."""
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    closed = [
        each
        for each in policies
        if each == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ]
    let_out = {
        port["port"] for p in policies for rule in p.get("egress", ()) for port in rule["ports"]
    }
    (let_in,) = (rule for each in policies for rule in each.get("ingress", ()))
    wanted = {DNS_PORT} | API_SERVER_PORTS
    if "postgresql" in overlay:
        wanted.add(POSTGRESQL_PORT)
    for text in texts_of(tomllib.loads((OVERLAYS / overlay / "interlock.toml").read_text())):
        parts = urlsplit(text)
        if parts.scheme in DEFAULT_PORTS:
            wanted.add(parts.port or DEFAULT_PORTS[parts.scheme])

    assert len(closed) == 1
    assert let_out == wanted
    assert [port["port"] for port in let_in["ports"]] == [
        port["containerPort"] for port in pod["containers"][0]["ports"]
    ]
    assert let_in["from"]


def test_service_budget_and_policies_choose_the_pods_of_the_deployment(objects: list[Json]) -> None:
    """A selector that matches nothing is no error anywhere."""
    template = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    budget = only(objects, "PodDisruptionBudget")["spec"]

    assert only(objects, "Deployment")["spec"]["selector"]["matchLabels"] == template
    assert only(objects, "Service")["spec"]["selector"] == template
    assert budget["selector"]["matchLabels"] == template
    assert budget["maxUnavailable"] == 1
    for each in objects:
        if each["kind"] == "NetworkPolicy":
            assert each["spec"]["podSelector"].get("matchLabels", template) == template


def test_the_image_has_the_version_of_the_package(pod: Json) -> None:
    """Rights and code belong to one another."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert {each["image"] for each in containers(pod)} == {f"interlock:{version}"}


def keys_of(found: Any) -> set[str]:
    """Every key, however deep."""
    if isinstance(found, list):
        return set().union(*map(keys_of, found))
    if not isinstance(found, dict):
        return set()
    return set(found).union(*map(keys_of, found.values()))


def texts_of(found: Any) -> list[str]:
    """Every string that is a value."""
    if isinstance(found, str):
        return [found]
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return [text for each in inner for text in texts_of(each)]


def test_the_policy_leaves_nothing_of_a_node_but_three_fields_and_binds_every_account() -> None:
    """Read as text only: the rule itself needs Kubernetes 1.30 (see test_cluster)."""
    objects = rendered(OVERLAYS / "guarded")
    policy = only(objects, "ValidatingAdmissionPolicy")["spec"]
    binding = only(objects, "ValidatingAdmissionPolicyBinding")["spec"]

    assert policy["failurePolicy"] == "Fail"
    assert "Deny" in binding["validationActions"]
    assert binding["policyName"] == only(objects, "ValidatingAdmissionPolicy")["metadata"]["name"]
    assert "matchResources" not in binding
    assert json.dumps(policy["matchConditions"]).count("system:serviceaccount:interlock:") == 1
    assert "unschedulable" not in "".join(each["expression"] for each in policy["validations"])
