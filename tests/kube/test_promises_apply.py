"""What a Kubernetes API server promises of server-side apply: who owns what, and who is asked."""

from tests.kube.asking import Json, Kube, body, causes, deployment, refused


def config(name: str = "c", **data: str) -> Json:
    """What a manager wants a ConfigMap to be."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def owned(value: Json) -> dict[tuple[str, str], Json]:
    """The fields of each manager, by name and operation."""
    return {
        (each["manager"], each["operation"]): each["fieldsV1"]
        for each in value["metadata"].get("managedFields", ())
    }


async def test_an_apply_makes_what_is_not_there_and_owns_it(kube: Kube) -> None:
    """201 the first time, 200 afterwards, and no new version where nothing changes."""
    path = kube.at("configmaps", "c")
    first = await kube.apply(path, config(a="1"), "one")
    assert first.status_code == 201
    assert owned(body(first)) == {("one", "Apply"): {"f:data": {"f:a": {}}}}
    again = await kube.apply(path, config(a="1"), "one")

    assert again.status_code == 200
    assert body(again)["metadata"]["resourceVersion"] == body(first)["metadata"]["resourceVersion"]


async def test_managers_of_different_fields_share_an_object(kube: Kube) -> None:
    """Each says only what it cares about."""
    path = kube.at("configmaps", "c")
    await kube.apply(path, config(a="1"), "one")
    both = body(await kube.apply(path, config(b="2"), "two"))

    assert both["data"] == {"a": "1", "b": "2"}
    assert owned(both)["two", "Apply"] == {"f:data": {"f:b": {}}}


async def test_what_another_manager_owns_is_a_conflict_that_names_it(kube: Kube) -> None:
    """Every field is named, with its owner."""
    path = kube.at("configmaps", "c")
    await kube.apply(path, config(a="1", b="1", c="1"), "one")
    status = refused(await kube.apply(path, config(a="2", c="1"), "two"), 409, "Conflict")
    assert status["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert status["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    status = refused(await kube.apply(path, config(a="2", b="2"), "two"), 409, "Conflict")

    assert status["message"] == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    )
    assert (await kube.get(path))["data"] == {"a": "1", "b": "1", "c": "1"}


async def test_force_takes_a_field_over(kube: Kube) -> None:
    """Its former owner keeps the rest."""
    path = kube.at("configmaps", "c")
    await kube.apply(path, config(a="1", b="1"), "one")
    taken = body(await kube.apply(path, config(a="2"), "two", force="true"))

    assert taken["data"] == {"a": "2", "b": "1"}
    assert owned(taken) == {
        ("one", "Apply"): {"f:data": {"f:b": {}}},
        ("two", "Apply"): {"f:data": {"f:a": {}}},
    }


async def test_an_equal_value_is_shared_and_outlives_one_owner(kube: Kube) -> None:
    """It goes with the last of them."""
    path = kube.at("configmaps", "c")
    await kube.apply(path, config(a="1", b="1"), "one")
    shared = body(await kube.apply(path, config(a="1"), "two"))
    assert owned(shared)["two", "Apply"] == {"f:data": {"f:a": {}}}

    left = body(await kube.apply(path, config(), "one"))
    assert left["data"] == {"a": "1"}
    assert list(owned(left)) == [("two", "Apply")]


async def test_an_ordinary_write_owns_what_it_changed(kube: Kube) -> None:
    """Who patched is asked as well."""
    path = kube.at("configmaps", "c")
    await kube.apply(path, config(a="1", b="1"), "one")
    patched = body(await kube.patch(path, {"data": {"a": "2"}}, fieldManager="hand"))
    assert owned(patched)["one", "Apply"] == {"f:data": {"f:b": {}}}
    assert owned(patched)["hand", "Update"] == {"f:data": {"f:a": {}}}

    status = refused(await kube.apply(path, config(a="1", b="1"), "one"), 409, "Conflict")
    assert causes(status) == {("FieldManagerConflict", ".data.a")}
    assert 'conflict with "hand" using v1' in status["message"]


async def test_items_of_a_list_are_owned_by_their_key(kube: Kube) -> None:
    """One adds a container beside another's."""
    path = kube.at("deployments", "d")
    await kube.apply(path, deployment("d", paused=True), "one")
    more = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "template": {"spec": {"containers": [{"name": "side", "image": "example/side:1"}]}}
        },
    }
    both = body(await kube.apply(path, more, "two"))
    containers = [each["name"] for each in both["spec"]["template"]["spec"]["containers"]]
    assert sorted(containers) == ["main", "side"]
    keys = owned(both)["two", "Apply"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert list(keys) == ['k:{"name":"side"}']

    more["spec"] = {"paused": True}
    one = body(await kube.apply(path, more, "two"))
    assert [e["name"] for e in one["spec"]["template"]["spec"]["containers"]] == ["main"]


async def test_a_dry_run_of_an_apply_finds_the_conflict(kube: Kube) -> None:
    """And keeps nothing where there is none."""
    path = kube.at("configmaps", "c")
    tried = await kube.apply(path, config(a="1"), "one", dryRun="All")
    assert tried.status_code == 201
    refused(await kube.http.get(path), 404, "NotFound")
    await kube.apply(path, config(a="1"), "one")

    refused(await kube.apply(path, config(a="2"), "two", dryRun="All"), 409, "Conflict")
    forced = await kube.apply(path, config(a="2"), "two", dryRun="All", force="true")
    assert body(forced)["data"] == {"a": "2"}
    assert (await kube.get(path))["data"] == {"a": "1"}


async def test_an_apply_says_who_and_what_it_is(kube: Kube) -> None:
    """Without a manager, a version or the right name it is refused."""
    path = kube.at("configmaps", "c")
    nobody = await kube.apply(path, config(a="1"), "")
    assert causes(refused(nobody, 422, "Invalid")) == {("FieldValueRequired", "fieldManager")}
    bare = await kube.apply(path, {"metadata": {"name": "c"}}, "one")
    assert "Incorrect version specified" in refused(bare, 400, "BadRequest")["message"]
    refused(await kube.apply(path, config("d", a="1"), "one"), 400, "BadRequest")
    await kube.config_map("c")
    merge = await kube.patch(path, {}, force="true")
    assert causes(refused(merge, 422, "Invalid")) == {("FieldValueForbidden", "force")}
    books = {**config(), "metadata": {"name": "c", "managedFields": [{"manager": "x"}]}}
    refused(await kube.apply(path, books, "one"), 400, "BadRequest")


async def test_an_apply_of_a_field_that_nobody_declares_fails(kube: Kube) -> None:
    """It is not dropped, as it would be in a create."""
    answer = await kube.apply(kube.at("configmaps", "c"), {**config(), "zork": 1}, "one")

    assert answer.status_code == 500
    assert ".zork: field not declared in schema" in body(answer)["message"]


async def test_a_status_is_applied_below_and_not_above(kube: Kube) -> None:
    """Whoever applies a whole object does not thereby own what was seen of it."""
    name = kube.namespace
    path = f"/api/v1/nodes/{name}"
    config_of_node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"a": "b"}},
        "status": {"conditions": [{"type": "GpuSmWatch", "status": "True"}]},
    }
    await kube.http.post("/api/v1/nodes", json={"metadata": {"name": name}})
    above = body(await kube.apply(path, config_of_node, "one"))
    kinds = [each["type"] for each in above["status"].get("conditions", ())]
    assert "GpuSmWatch" not in kinds

    below = body(await kube.apply(f"{path}/status", config_of_node, "one"))
    found = {each["type"]: each["status"] for each in below["status"]["conditions"]}
    assert found["GpuSmWatch"] == "True"
    await kube.http.delete(path)
