"""What a Kubernetes API server promises of custom resources: schemas, defaults, pruning, scale."""

import json

import pytest

from tests.kube.asking import (
    APPLY,
    CRDS,
    STRATEGIC,
    Json,
    Kube,
    body,
    causes,
    eventually,
    refused,
)
from tests.kube.definitions import WIDGETS, define, definitions, widget_definition

RESETS = "/apis/janitor.dgxc.nvidia.com/v1alpha1/gpuresets"


def widget(name: str, **spec: object) -> Json:
    """A widget that nothing is wrong with, unless it is said here."""
    return {
        "apiVersion": "test.example/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 1, **spec},
    }


@pytest.fixture
async def widgets(kube: Kube) -> Kube:
    """A server that knows widgets."""
    await define(kube, widget_definition())
    return kube


async def make(kube: Kube, value: Json) -> Json:
    """The widget that the server made."""
    answer = await kube.http.post(WIDGETS, json=value)
    assert answer.status_code == 201, answer.text
    return body(answer)


async def test_a_definition_that_is_none_is_refused(kube: Kube) -> None:
    """Its name says what it defines, and it has a schema."""
    wrong = widget_definition()
    wrong["metadata"]["name"] = "gadgets.test.example"
    del wrong["spec"]["versions"][0]["schema"]

    status = refused(await kube.http.post(CRDS, json=wrong), 422, "Invalid")
    assert causes(status) == {
        ("FieldValueInvalid", "metadata.name"),
        ("FieldValueRequired", "spec.versions.schema.openAPIV3Schema"),
    }


async def test_a_definition_is_served_and_found(widgets: Kube) -> None:
    """Discovery tells its subresources."""
    made = await widgets.get(f"{CRDS}/widgets.test.example")
    told = {each["type"]: each["status"] for each in made["status"]["conditions"]}
    assert told == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["spec"]["names"]["listKind"] == "WidgetList"

    found = await widgets.get("/apis/test.example/v1")
    listed = {each["name"]: each for each in found["resources"]}
    assert listed.keys() == {"widgets", "widgets/status", "widgets/scale"}
    assert listed["widgets"]["shortNames"] == ["wd"]
    assert not listed["widgets"]["namespaced"]
    group = await widgets.get("/apis/test.example")
    assert group["preferredVersion"] == {"groupVersion": "test.example/v1", "version": "v1"}


async def test_defaults_are_set_and_the_undeclared_is_dropped(widgets: Kube) -> None:
    """But where a schema says that anything may be there."""
    name = widgets.namespace
    value = widget(name, zork=1, free={"any": [1]}, ports=[{"name": "a", "zork": 1}])
    made = await make(widgets, {**value, "extra": 1, "status": {"phase": "Done"}})

    assert made["spec"] == {
        "size": 1,
        "colour": "red",
        "replicas": 1,
        "free": {"any": [1]},
        "ports": [{"name": "a", "port": 80}],
    }
    assert "extra" not in made
    assert "status" not in made
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ({"size": 0}, ("FieldValueInvalid", "spec.size")),
        ({"size": 9}, ("FieldValueInvalid", "spec.size")),
        ({"size": "1"}, ("FieldValueInvalid", "spec.size")),
        ({"colour": "green"}, ("FieldValueNotSupported", "spec.colour")),
        ({"serial": "X-1"}, ("FieldValueInvalid", "spec.serial")),
        ({"labels": {"a": 1}}, ("FieldValueInvalid", "spec.labels.a")),
        ({"ports": {}}, ("FieldValueInvalid", "spec.ports")),
        ({"ports": [{"port": 1}]}, ("FieldValueRequired", "spec.ports.name")),
        ({"ports": [{"name": "a"}, {"name": "a"}]}, ("FieldValueDuplicate", "spec.ports")),
    ],
)
async def test_what_breaks_the_schema_is_refused_with_its_field(
    widgets: Kube, spec: Json, cause: tuple[str, str]
) -> None:
    """A dry run says it as well."""
    value = widget(widgets.namespace, **spec)
    for options in ({}, {"dryRun": "All"}):
        answer = await widgets.http.post(WIDGETS, json=value, params=options)
        status = refused(answer, 422, "Invalid")
        assert cause in causes(status)
        assert status["details"]["kind"] == "Widget"


async def test_a_custom_object_says_its_kind_and_an_update_its_version(widgets: Kube) -> None:
    """Built-in kinds are less strict."""
    made = await make(widgets, widget(widgets.namespace))
    path = f"{WIDGETS}/{widgets.namespace}"
    refused(await widgets.http.post(WIDGETS, json={"metadata": {"name": "w"}}), 400, "BadRequest")
    del made["metadata"]["resourceVersion"]
    blind = await widgets.http.put(path, json=made)

    status = refused(blind, 422, "Invalid")
    assert causes(status) == {("FieldValueInvalid", "metadata.resourceVersion")}


async def test_items_of_a_list_of_custom_objects_say_their_kind(widgets: Kube) -> None:
    """Unlike those of built-in kinds."""
    await make(widgets, widget(widgets.namespace))
    listed = await widgets.get(WIDGETS)

    assert listed["kind"] == "WidgetList"
    assert {item["kind"] for item in listed["items"]} == {"Widget"}


async def test_wish_and_status_of_a_custom_object_are_written_apart(widgets: Kube) -> None:
    """Labels do not pass below either; only wishes are counted."""
    await make(widgets, widget(widgets.namespace))
    path = f"{WIDGETS}/{widgets.namespace}"
    all_of_it = {"metadata": {"labels": {"a": "b"}}, "spec": {"size": 2}, "status": {"phase": "X"}}

    below = body(await widgets.patch(f"{path}/status", all_of_it))
    assert (below["spec"]["size"], below["status"]) == (1, {"phase": "X"})
    assert "labels" not in below["metadata"]
    above = body(await widgets.patch(path, {**all_of_it, "status": {"phase": "Y"}}))
    assert (above["spec"]["size"], above["status"]) == (2, {"phase": "X"})
    assert [each["metadata"]["generation"] for each in (below, above)] == [1, 2]
    wrong = await widgets.patch(f"{path}/status", {"status": {"phase": 1}})
    assert causes(refused(wrong, 422, "Invalid")) == {("FieldValueInvalid", "status.phase")}


async def test_a_custom_object_is_scaled_where_its_definition_says(widgets: Kube) -> None:
    """One number, by the path in the definition."""
    await make(widgets, widget(widgets.namespace, replicas=2))
    path = f"{WIDGETS}/{widgets.namespace}"
    assert (await widgets.get(f"{path}/scale"))["spec"] == {"replicas": 2}

    scaled = body(await widgets.patch(f"{path}/scale", {"spec": {"replicas": 5}}))
    assert scaled["spec"] == {"replicas": 5}
    assert (await widgets.get(path))["spec"]["replicas"] == 5


async def test_a_custom_object_takes_no_strategic_patch(widgets: Kube) -> None:
    """Nobody declares its merge keys."""
    await make(widgets, widget(widgets.namespace))
    answer = await widgets.patch(f"{WIDGETS}/{widgets.namespace}", {"spec": {"size": 2}}, STRATEGIC)

    refused(answer, 415, "UnsupportedMediaType")


async def test_a_custom_object_is_selected_by_name_and_not_by_its_fields(widgets: Kube) -> None:
    """Unless its definition says so, on servers that know that."""
    await make(widgets, widget(widgets.namespace))
    name = f"metadata.name={widgets.namespace}"
    assert await widgets.names(WIDGETS, fieldSelector=name) == [widgets.namespace]

    options = {"fieldSelector": "spec.colour=red"}
    refused(await widgets.http.get(WIDGETS, params=options), 400, "BadRequest")


async def test_items_of_a_custom_map_list_are_applied_by_key(widgets: Kube) -> None:
    """As those of built-in kinds are."""
    path = f"{WIDGETS}/{widgets.namespace}"

    async def apply(by: str, *ports: Json, **options: str) -> Json:
        config = widget(widgets.namespace, ports=list(ports))
        headers = {"Content-Type": APPLY}
        answer = await widgets.http.patch(
            path,
            content=json.dumps(config),
            headers=headers,
            params={"fieldManager": by, **options},
        )
        assert answer.status_code in (200, 201), answer.text
        return body(answer)

    await apply("one", {"name": "a", "port": 1})
    both = await apply("two", {"name": "b", "port": 2})
    assert [each["name"] for each in both["spec"]["ports"]] == ["a", "b"]
    left = await apply("one")
    assert left["spec"]["ports"] == [{"name": "b", "port": 2}]


async def test_what_may_be_a_number_or_a_string_is_one_of_them(kube: Kube) -> None:
    """Ports and percentages are."""
    definition = another("boxes", "Box")
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["amount"] = {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
    }
    await define(kube, definition)
    for amount, code in ((1, 201), ("1%", 201), (True, 422), ([], 422)):
        value = {**widget("box", amount=amount), "kind": "Box"}
        path = WIDGETS.replace("widgets", "boxes")
        answer = await kube.http.post(path, json=value, params={"dryRun": "All"})
        assert answer.status_code == code, answer.text


def another(plural: str, kind: str) -> Json:
    """The definition of widgets, under other names."""
    definition = widget_definition()
    definition["spec"]["names"] = {"plural": plural, "kind": kind}
    definition["metadata"]["name"] = f"{plural}.test.example"
    return definition


async def test_what_a_definition_defined_goes_with_it(kube: Kube) -> None:
    """And the path with it."""
    await define(kube, another("gadgets", "Gadget"))
    path = WIDGETS.replace("widgets", "gadgets")
    assert (await kube.http.post(path, json={**widget("g"), "kind": "Gadget"})).status_code == 201
    await kube.http.delete(f"{CRDS}/gadgets.test.example")

    async def gone() -> bool:
        answers = [await kube.http.get(path), await kube.http.get(f"{CRDS}/gadgets.test.example")]
        return [each.status_code for each in answers] == [404, 404]

    await eventually(gone)


# Definitions of real components


async def test_definitions_of_nvsentinel_are_served(kube: Kube) -> None:
    """As it ships them."""
    for definition in definitions("nvsentinel"):
        await define(kube, definition)
        name = definition["metadata"]["name"]
        told = (await kube.get(f"{CRDS}/{name}"))["status"]["conditions"]
        assert {each["type"]: each["status"] for each in told}["Established"] == "True"


async def test_a_reset_without_a_selector_is_accepted_and_so_means_every_gpu(kube: Kube) -> None:
    """No schema stops it: whoever asks for a reset has to."""
    for definition in definitions("nvsentinel"):
        if definition["spec"]["names"]["kind"] == "GPUReset":
            await define(kube, definition)

    def reset(**spec: object) -> Json:
        return {
            "apiVersion": "janitor.dgxc.nvidia.com/v1alpha1",
            "kind": "GPUReset",
            "metadata": {"name": kube.namespace},
            "spec": {"nodeName": "n1", **spec},
        }

    async def tried(value: Json) -> object:
        answer = await kube.http.post(RESETS, json=value, params={"dryRun": "All"})
        return answer.status_code if answer.is_success else causes(refused(answer, 422, "Invalid"))

    one = "GPU-00000000-0000-0000-0000-000000000000"
    assert await tried(reset()) == 201
    assert await tried(reset(selector={})) == 201
    assert await tried(reset(selector={"uuids": [one]})) == 201
    assert await tried(reset(selector={"uuids": ["0"]})) == {
        ("FieldValueInvalid", "spec.selector.uuids")
    }
    assert ("FieldValueInvalid", "spec.nodeName") in await tried(reset(nodeName=1))  # type: ignore[operator]
