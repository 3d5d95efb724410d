"""What a Kubernetes API server promises of lists and watches: pages, selectors, events, 410."""

import pytest

from tests.kube.asking import Json, Kube, body, causes, node, pod, refused

NAMES = ["a", "b", "c", "d", "e"]


async def five(kube: Kube) -> str:
    """The path of five objects, `a` to `c` of one app and the others of another."""
    for name in NAMES:
        await kube.config_map(name, {"app": "x" if name < "d" else "y"})
    return kube.at("configmaps")


async def pages(kube: Kube, path: str, **options: str) -> list[Json]:
    """Every page of a list."""
    found = [await kube.get(path, limit="2", **options)]
    while token := found[-1]["metadata"].get("continue"):
        found.append(await kube.get(path, limit="2", **{"continue": token}, **options))
    return found


def names(listed: Json) -> list[str]:
    """What a list holds of ours."""
    found = [item["metadata"]["name"] for item in listed["items"]]
    return [name for name in found if name in NAMES]


async def test_a_list_comes_whole_in_order_and_with_a_version(kube: Kube) -> None:
    """Its items do not repeat their kind."""
    listed = await kube.get(await five(kube))

    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert names(listed) == NAMES
    assert listed["metadata"]["resourceVersion"].isdigit()
    assert "kind" not in listed["items"][0]


async def test_pages_show_one_moment_whatever_happens_meanwhile(kube: Kube) -> None:
    """What is made, changed or deleted in between is not seen."""
    path = await five(kube)
    first = await kube.get(path, limit=2)
    await kube.http.delete(f"{path}/d")
    await kube.config_map("cc")
    await kube.patch(f"{path}/e", {"data": {"late": "1"}})
    token = first["metadata"]["continue"]
    rest = await kube.get(path, limit=10, **{"continue": token})

    assert names(first) + names(rest) == NAMES
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert all("data" not in item for item in rest["items"] if item["metadata"]["name"] == "e")
    left = len(first["items"]) + first["metadata"]["remainingItemCount"]
    assert left == len(first["items"]) + len(rest["items"])


async def test_pages_are_filled_with_what_matches(kube: Kube) -> None:
    """Two of three, then one; how many are left is not said."""
    found = await pages(kube, await five(kube), labelSelector="app=x")

    assert [names(page) for page in found] == [["a", "b"], ["c"]]
    assert "remainingItemCount" not in found[0]["metadata"]


async def test_a_page_of_a_forgotten_moment_is_gone(kube: Kube) -> None:
    """410, with a token to go on regardless, and a list that can be begun again."""
    path = await five(kube)
    first = await kube.get(path, limit=2)
    await kube.patch(f"{path}/a", {"data": {"x": "1"}})
    await kube.server.compact()
    options = {"limit": "10", "continue": first["metadata"]["continue"]}
    status = refused(await kube.http.get(path, params=options), 410, "Expired")
    assert status["message"].startswith("The provided continue parameter is too old")

    options["continue"] = status["metadata"]["continue"]
    assert names(await kube.get(path, **options)) == NAMES[2:]


async def test_a_list_of_a_forgotten_version_is_gone(kube: Kube) -> None:
    """Exactly that moment was asked for."""
    made = await kube.config_map("a")
    await kube.config_map("b")
    await kube.server.compact()
    version = made["metadata"]["resourceVersion"]
    options = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    answer = await kube.http.get(kube.at("configmaps"), params=options)

    status = refused(answer, 410, "Expired")
    assert status["message"] == "The resourceVersion for the provided list is too old."


async def test_a_list_of_a_version_shows_that_moment(kube: Kube) -> None:
    """As long as it is remembered."""
    await kube.config_map("a")
    made = await kube.config_map("b")
    await kube.config_map("c")
    version = made["metadata"]["resourceVersion"]
    options = {"resourceVersion": version, "resourceVersionMatch": "Exact"}

    assert await kube.names(kube.at("configmaps"), **options) == ["a", "b"]
    anyhow = await kube.names(kube.at("configmaps"), resourceVersion="0")
    assert sorted(anyhow) == ["a", "b", "c"]


async def test_a_version_that_is_yet_to_come_times_out(kube: Kube) -> None:
    """The caller has seen a newer server than this one."""
    answer = await kube.http.get("/api/v1/nodes", params={"resourceVersion": str(10**12)})

    assert causes_of_timeout(answer.json()) == ["ResourceVersionTooLarge"]
    refused(answer, 504, "Timeout")


def causes_of_timeout(status: Json) -> list[str]:
    """Why it timed out."""
    return [cause["reason"] for cause in status["details"]["causes"]]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("app", "abcde"),
        ("!app", ""),
        ("app=x", "abc"),
        ("app==y", "de"),
        ("app!=x", "de"),
        ("app in (x,z)", "abc"),
        ("app notin (x)", "de"),
        ("app in (x),app!=y", "abc"),
        ("other!=x", "abcde"),
    ],
)
async def test_labels_select(kube: Kube, selector: str, found: str) -> None:
    """What has no such label is unequal to everything."""
    listed = await kube.get(await five(kube), labelSelector=selector)

    assert "".join(names(listed)) == found


async def test_fields_select(kube: Kube) -> None:
    """Which ones is fixed for each kind."""
    path = await five(kube)
    assert await kube.names(path, fieldSelector="metadata.name=b") == ["b"]
    assert await kube.names(path, fieldSelector=f"metadata.namespace!={kube.namespace}") == []
    await kube.create("pods", pod("here", nodeName="n1"))
    await kube.create("pods", pod("there", nodeName="n2"))
    pods = kube.at("pods")
    assert await kube.names(pods, fieldSelector="spec.nodeName=n1") == ["here"]
    both = "spec.nodeName=n1,status.phase=Pending"
    assert await kube.names(pods, fieldSelector=both) == ["here"]
    everywhere = f"spec.nodeName=n2,metadata.namespace={kube.namespace}"
    assert await kube.names("/api/v1/pods", fieldSelector=everywhere) == ["there"]

    name = kube.namespace
    await kube.http.post("/api/v1/nodes", json=node(name, unschedulable=True))
    assert name in await kube.names("/api/v1/nodes", fieldSelector="spec.unschedulable=true")
    assert name not in await kube.names("/api/v1/nodes", fieldSelector="spec.unschedulable=false")
    await kube.http.delete(f"/api/v1/nodes/{name}")

    about = {"kind": "ConfigMap", "name": "b", "namespace": kube.namespace}
    event = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "R", "type": "Normal"}
    await kube.create("events", event)
    wanted = "involvedObject.kind=ConfigMap,involvedObject.name=b,reason=R"
    assert await kube.names(kube.at("events"), fieldSelector=wanted) == ["e"]
    assert await kube.names(kube.at("events"), fieldSelector="involvedObject.name=c") == []


@pytest.mark.parametrize(
    "options",
    [
        {"labelSelector": "a=(b"},
        {"fieldSelector": "spec.none=1"},
        {"fieldSelector": "none"},
        {"limit": "z"},
        {"continue": "zzz", "limit": "1"},
    ],
)
async def test_an_option_that_cannot_be_read_is_a_bad_request(
    kube: Kube, options: dict[str, str]
) -> None:
    """Nothing is listed, rather than everything."""
    refused(await kube.http.get("/api/v1/nodes", params=options), 400, "BadRequest")


async def test_a_match_needs_a_version(kube: Kube) -> None:
    """Exactly what, otherwise."""
    options = {"resourceVersionMatch": "Exact"}
    status = refused(await kube.http.get("/api/v1/nodes", params=options), 422, "Invalid")

    assert causes(status) == {("FieldValueForbidden", "resourceVersionMatch")}


# Watched


async def test_a_watch_from_a_list_hears_everything_since(kube: Kube) -> None:
    """In order, each once, and what was deleted as it last was."""
    path = await five(kube)
    listed = await kube.get(path)
    await kube.patch(f"{path}/a", {"data": {"x": "1"}})
    await kube.http.delete(f"{path}/b")
    version = listed["metadata"]["resourceVersion"]
    async with kube.watch(path, resourceVersion=version) as events:
        await kube.config_map("f")
        heard: list[Json] = []
        while len(heard) < 3:
            event = await anext(events)
            if event["object"]["metadata"]["name"] != "kube-root-ca.crt":
                heard.append(event)

    said = [(each["type"], each["object"]["metadata"]["name"]) for each in heard]
    assert said == [("MODIFIED", "a"), ("DELETED", "b"), ("ADDED", "f")]
    assert heard[0]["object"]["data"] == {"x": "1"}
    assert {each["object"]["kind"] for each in heard} == {"ConfigMap"}
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in heard]
    assert versions == sorted(versions)
    assert versions[0] > int(version)


@pytest.mark.parametrize("version", [{}, {"resourceVersion": "0"}])
async def test_a_watch_from_nowhere_begins_with_what_is_there(
    kube: Kube, version: dict[str, str]
) -> None:
    """As if it had just been added."""
    path = await five(kube)
    async with kube.watch(path, labelSelector="app=y", **version) as events:
        first = [await anext(events), await anext(events)]
        await kube.config_map("f", {"app": "y"})
        last = await anext(events)

    assert {each["object"]["metadata"]["name"] for each in first} == {"d", "e"}
    assert {each["type"] for each in (*first, last)} == {"ADDED"}
    assert last["object"]["metadata"]["name"] == "f"


async def test_to_a_watch_with_a_selector_leaving_it_is_a_deletion(kube: Kube) -> None:
    """And coming into it an addition."""
    path = await five(kube)
    version = (await kube.get(path))["metadata"]["resourceVersion"]
    async with kube.watch(path, resourceVersion=version, labelSelector="app=x") as events:
        await kube.patch(f"{path}/a", {"metadata": {"labels": {"app": "y"}}})
        await kube.patch(f"{path}/d", {"metadata": {"labels": {"app": "x"}}})
        await kube.patch(f"{path}/d", {"data": {"x": "1"}})
        heard = [await anext(events) for _ in range(3)]

    assert [each["type"] for each in heard] == ["DELETED", "ADDED", "MODIFIED"]
    left = heard[0]["object"]["metadata"]
    assert (left["name"], left["labels"]) == ("a", {"app": "x"})
    assert int(left["resourceVersion"]) > int(version)


async def test_a_watch_of_one_object_is_a_selector(kube: Kube) -> None:
    """There is no other way to wait for one."""
    path = await five(kube)
    async with kube.watch(path, fieldSelector="metadata.name=c") as events:
        first = await anext(events)
        await kube.patch(f"{path}/a", {"data": {"x": "1"}})
        await kube.patch(f"{path}/c", {"data": {"x": "1"}})
        second = await anext(events)

    assert [each["object"]["metadata"]["name"] for each in (first, second)] == ["c", "c"]


async def test_a_watch_ends_when_it_was_told_to(kube: Kube) -> None:
    """The stream ends; that is no error."""
    async with kube.watch(kube.at("leases"), timeoutSeconds="1") as events:
        heard = [event async for event in events]

    assert heard == []


async def test_a_bookmark_says_how_far_a_quiet_watch_is(kube: Kube) -> None:
    """It has the kind and a version, and nothing else; one comes before the end.

    A server of 1.20 was seen to send none in 90 s, so clients cannot count on them.
    """
    path = kube.at("pods")
    await kube.create("pods", pod("p"))
    listed = await kube.get(path)
    version = listed["metadata"]["resourceVersion"]
    options = {"allowWatchBookmarks": "true", "timeoutSeconds": "5", "resourceVersion": version}
    async with kube.watch(path, **options) as events:
        heard = [event async for event in events]

    marks = [each["object"] for each in heard if each["type"] == "BOOKMARK"]
    assert marks or await kube.release() < (1, 25)
    for mark in marks:
        assert mark["kind"] == "Pod"
        assert int(mark["metadata"]["resourceVersion"]) >= int(version)
        assert "name" not in mark["metadata"]


async def test_a_watch_from_a_version_that_is_no_number_is_refused(kube: Kube) -> None:
    """It is the one refusal that has no reason."""
    options = {"watch": "1", "resourceVersion": "abc"}
    answer = await kube.http.get(kube.at("configmaps"), params=options)

    assert answer.status_code >= 400
    assert body(answer)["status"] == "Failure"
