"""What a Kubernetes API server promises of one object: made, read, changed, and deleted."""

import pytest

from tests.kube.asking import (
    Kube,
    body,
    causes,
    deployment,
    node,
    pod,
    refused,
)

# Made


async def test_a_new_object_has_what_only_the_server_gives(kube: Kube) -> None:
    """Identity, version and age are never the caller's."""
    made = await kube.config_map("c", a="1")
    metadata = made["metadata"]

    assert (made["kind"], made["apiVersion"], made["data"]) == ("ConfigMap", "v1", {"a": "1"})
    assert len(metadata["uid"]) == 36
    assert metadata["resourceVersion"].isdigit()
    assert metadata["creationTimestamp"].endswith("Z")
    assert await kube.get(kube.at("configmaps", "c")) == made


async def test_a_name_that_is_taken_is_said_to_exist(kube: Kube) -> None:
    """`AlreadyExists` is a 409 too, and means something else than a conflict."""
    await kube.config_map("c")
    again = await kube.http.post(kube.at("configmaps"), json={"metadata": {"name": "c"}})

    status = refused(again, 409, "AlreadyExists")
    assert status["message"] == 'configmaps "c" already exists'
    assert status["details"] == {"name": "c", "kind": "configmaps"}


async def test_a_generated_name_begins_as_asked(kube: Kube) -> None:
    """Whoever makes many needs no names."""
    made = await kube.create("configmaps", {"metadata": {"generateName": "many-"}})

    assert made["metadata"]["name"].startswith("many-")
    assert len(made["metadata"]["name"]) == len("many-") + 5


async def test_nothing_is_made_in_a_namespace_that_is_not_there(kube: Kube) -> None:
    """The namespace is what was not found."""
    answer = await kube.http.post(
        "/api/v1/namespaces/nowhere/configmaps", json={"metadata": {"name": "c"}}
    )

    status = refused(answer, 404, "NotFound")
    assert status["message"] == 'namespaces "nowhere" not found'


async def test_what_is_not_there_is_not_found_by_name(kube: Kube) -> None:
    """The details name it for programs."""
    status = refused(await kube.http.get("/api/v1/nodes/none"), 404, "NotFound")

    assert status["message"] == 'nodes "none" not found'
    assert status["details"] == {"name": "none", "kind": "nodes"}


@pytest.mark.parametrize(
    ("metadata", "cause"),
    [
        ({}, ("FieldValueRequired", "metadata.name")),
        ({"name": "N_1"}, ("FieldValueInvalid", "metadata.name")),
        ({"name": "n", "labels": {"a b": ""}}, ("FieldValueInvalid", "metadata.labels")),
        ({"name": "n", "labels": {"a": "-"}}, ("FieldValueInvalid", "metadata.labels")),
        (
            {"name": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n"}]},
            ("FieldValueInvalid", "metadata.ownerReferences.uid"),
        ),
    ],
)
async def test_metadata_that_breaks_a_rule_is_refused_with_its_field(
    kube: Kube, metadata: dict[str, object], cause: tuple[str, str]
) -> None:
    """Each cause says where and why."""
    answer = await kube.http.post(kube.at("configmaps"), json={"metadata": metadata})

    assert causes(refused(answer, 422, "Invalid")) == {cause}


async def test_every_broken_rule_is_named_at_once(kube: Kube) -> None:
    """One refusal is enough to mend an object."""
    broken = pod("p", restartPolicy="Perhaps", containers=[{"name": "A B"}])
    status = refused(await kube.http.post(kube.at("pods"), json=broken), 422, "Invalid")

    assert causes(status) == {
        ("FieldValueInvalid", "spec.containers.name"),
        ("FieldValueRequired", "spec.containers.image"),
        ("FieldValueNotSupported", "spec.restartPolicy"),
    }
    assert status["message"].startswith('Pod "p" is invalid: [')
    assert status["details"]["kind"] == "Pod"


async def test_members_that_nobody_declares_are_dropped(kube: Kube) -> None:
    """A misspelt field looks accepted, and is not there."""
    made = await kube.create("configmaps", {"metadata": {"name": "c"}, "dta": {"a": "1"}})

    assert "dta" not in made


@pytest.mark.parametrize(
    "value",
    [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}},
        {"apiVersion": "v2", "kind": "Node", "metadata": {"name": "n"}},
        {"metadata": {"name": "n"}, "spec": {"unschedulable": "yes"}},
        {"metadata": {"name": "n", "labels": {"a": 1}}},
    ],
)
async def test_a_body_of_another_type_is_a_bad_request(kube: Kube, value: object) -> None:
    """It is not even looked at."""
    refused(await kube.http.post("/api/v1/nodes", json=value), 400, "BadRequest")


async def test_a_body_that_is_no_json_is_a_bad_request(kube: Kube) -> None:
    """Another format than those known is told apart."""
    url, headers = kube.at("configmaps"), {"Content-Type": "application/json"}
    refused(await kube.http.post(url, content=b"{", headers=headers), 400, "BadRequest")
    plain = await kube.http.post(url, content=b"{}", headers={"Content-Type": "text/plain"})
    refused(plain, 415, "UnsupportedMediaType")


async def test_defaults_are_filled_in(kube: Kube) -> None:
    """What is read back says what will happen."""
    made = await kube.create("pods", pod("p"))
    assert made["spec"]["restartPolicy"] == "Always"
    assert made["spec"]["terminationGracePeriodSeconds"] == 30
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert made["status"]["phase"] == "Pending"
    tolerated = {each["key"] for each in made["spec"]["tolerations"]}
    assert tolerated == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}

    made = await kube.create("deployments", deployment("d"))
    assert made["spec"]["replicas"] == 1
    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    assert made["metadata"]["generation"] == 1


async def test_a_selector_that_misses_its_own_template_is_refused(kube: Kube) -> None:
    """It would make pods for ever."""
    wrong = deployment("d", selector={"matchLabels": {"app": "other"}})
    status = refused(await kube.http.post(kube.at("deployments"), json=wrong), 422, "Invalid")

    assert causes(status) == {("FieldValueInvalid", "spec.template.metadata.labels")}
    assert status["message"].startswith('Deployment.apps "d" is invalid: ')


async def test_a_dry_run_checks_everything_and_keeps_nothing(kube: Kube) -> None:
    """The answer is the one that the real write would get."""
    url = kube.at("configmaps")
    wanted = {"metadata": {"name": "dry"}, "data": {"a": "1"}}
    tried = await kube.http.post(url, json=wanted, params={"dryRun": "All"})
    assert tried.status_code == 201
    assert "resourceVersion" not in body(tried)["metadata"]
    assert await kube.names(url) == []

    bad = await kube.http.post(url, json={"metadata": {"name": "A"}}, params={"dryRun": "All"})
    refused(bad, 422, "Invalid")
    await kube.create("configmaps", wanted)
    taken = await kube.http.post(url, json=wanted, params={"dryRun": "All"})
    refused(taken, 409, "AlreadyExists")
    path = kube.at("configmaps", "dry")
    patched = await kube.patch(path, {"data": {"a": "2"}}, dryRun="All")
    assert body(patched)["data"] == {"a": "2"}
    deleted = await kube.http.delete(path, params={"dryRun": "All"})
    assert deleted.status_code == 200
    assert (await kube.get(path))["data"] == {"a": "1"}


async def test_only_one_kind_of_dry_run_is_known(kube: Kube) -> None:
    """A misspelt one must not write."""
    wanted = {"metadata": {"name": "c"}}
    answer = await kube.http.post(kube.at("configmaps"), json=wanted, params={"dryRun": "Some"})

    assert causes(refused(answer, 422, "Invalid")) == {("FieldValueNotSupported", "dryRun")}
    assert await kube.names(kube.at("configmaps")) == []


# Changed


async def test_an_update_of_what_has_changed_since_is_a_conflict(kube: Kube) -> None:
    """Nobody overwrites what they have not seen."""
    made = await kube.config_map("c", a="1")
    path = kube.at("configmaps", "c")
    assert (await kube.http.put(path, json={**made, "data": {"a": "2"}})).status_code == 200
    late = await kube.http.put(path, json={**made, "data": {"a": "3"}})

    status = refused(late, 409, "Conflict")
    assert status["message"] == (
        'Operation cannot be fulfilled on configmaps "c": the object has been modified; please '
        "apply your changes to the latest version and try again"
    )
    assert status["details"] == {"name": "c", "kind": "configmaps"}
    assert (await kube.get(path))["data"] == {"a": "2"}


async def test_a_patch_that_names_a_version_is_held_to_it(kube: Kube) -> None:
    """That is how a patch is made safe."""
    made = await kube.config_map("c", a="1")
    path, version = kube.at("configmaps", "c"), made["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}

    assert (await kube.patch(path, patch)).status_code == 200
    refused(await kube.patch(path, patch), 409, "Conflict")


async def test_an_update_of_another_object_of_this_name_is_a_conflict(kube: Kube) -> None:
    """It was deleted and made anew."""
    await kube.config_map("c")
    wrong = {"metadata": {"name": "c", "uid": "00000000-0000-0000-0000-000000000000"}}

    status = refused(await kube.http.put(kube.at("configmaps", "c"), json=wrong), 409, "Conflict")
    assert "Precondition failed: UID in precondition" in status["message"]


async def test_an_update_that_changes_nothing_makes_no_version(kube: Kube) -> None:
    """Whoever watches hears nothing."""
    made = await kube.config_map("c", a="1")
    path = kube.at("configmaps", "c")

    assert body(await kube.patch(path, {"data": {"a": "1"}})) == made
    assert body(await kube.http.put(path, json=made)) == made


async def test_an_update_does_not_create(kube: Kube) -> None:
    """Nor does a patch."""
    missing = kube.at("configmaps", "none")
    refused(await kube.http.put(missing, json={"metadata": {"name": "none"}}), 404, "NotFound")
    refused(await kube.patch(missing, {}), 404, "NotFound")


async def test_an_object_keeps_its_name(kube: Kube) -> None:
    """Path and body must agree."""
    await kube.config_map("c")
    path = kube.at("configmaps", "c")

    refused(await kube.patch(path, {"metadata": {"name": "d"}}), 400, "BadRequest")
    refused(await kube.http.put(path, json={"metadata": {"name": "d"}}), 400, "BadRequest")


async def test_what_may_not_change_is_refused(kube: Kube) -> None:
    """A pod stays where it is, a deployment keeps its selector."""
    await kube.create("pods", pod("p", nodeName="none"))
    moved = await kube.patch(kube.at("pods", "p"), {"spec": {"nodeName": "other"}})
    assert causes(refused(moved, 422, "Invalid")) == {("FieldValueForbidden", "spec")}

    await kube.create("deployments", deployment("d"))
    other = {
        "selector": {"matchLabels": {"b": "2"}},
        "template": {"metadata": {"labels": {"b": "2"}}},
    }
    changed = await kube.patch(kube.at("deployments", "d"), {"spec": other})
    assert causes(refused(changed, 422, "Invalid")) == {("FieldValueInvalid", "spec.selector")}


async def test_generation_counts_wishes_and_not_what_was_seen(kube: Kube) -> None:
    """A controller compares it with what it has observed."""
    await kube.create("deployments", deployment("d", paused=True))
    path = kube.at("deployments", "d")
    wished = body(await kube.patch(path, {"spec": {"replicas": 2}}))
    labelled = body(await kube.patch(path, {"metadata": {"labels": {"a": "b"}}}))

    assert [each["metadata"]["generation"] for each in (wished, labelled)] == [2, 2]


async def test_status_is_written_below_and_nothing_else_is(kube: Kube) -> None:
    """A wish cannot be written there, and a status not above."""
    made = body(await kube.http.post("/api/v1/nodes", json=node(kube.namespace)))
    path = f"/api/v1/nodes/{kube.namespace}"
    patch = {"spec": {"unschedulable": True}, "status": {"capacity": {"nvidia.com/gpu": "8"}}}

    below = body(await kube.patch(f"{path}/status", patch))
    assert below["status"]["capacity"] == {"nvidia.com/gpu": "8"}
    assert not below["spec"].get("unschedulable")
    above = body(await kube.patch(path, {"status": {"capacity": None}}))
    assert above["status"]["capacity"] == {"nvidia.com/gpu": "8"}
    assert above["metadata"]["uid"] == made["metadata"]["uid"]
    await kube.http.delete(path)
