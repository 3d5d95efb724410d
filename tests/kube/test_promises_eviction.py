"""What a Kubernetes API server promises of evictions: budgets are asked, and can say no."""

import httpx2
import pytest

from tests.kube.asking import Json, Kube, body, eventually, pod, refused

LABELS = {"app": "served"}


class Budgets:
    """Disruption budgets, in the version that the server has."""

    def __init__(self, kube: Kube, version: str) -> None:
        self.kube, self.version = kube, version
        self.path = f"/apis/policy/{version}/namespaces/{kube.namespace}/poddisruptionbudgets"

    async def create(self, name: str = "b", *, counted: bool = True, **spec: object) -> None:
        """A budget over our pods, once it has been counted where it can be."""
        wanted = {
            "apiVersion": f"policy/{self.version}",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": LABELS}, **spec},
        }
        answer = await self.kube.http.post(self.path, json=wanted)
        assert answer.status_code == 201, answer.text

        async def observed() -> bool:
            return (await self.status(name)).get("observedGeneration") == 1

        if counted:
            await eventually(observed)

    async def status(self, name: str = "b") -> Json:
        """What the budget allows now."""
        status: Json = (await self.kube.get(f"{self.path}/{name}"))["status"]
        return status

    async def evict(self, name: str, **options: str) -> httpx2.Response:
        """The answer to an eviction."""
        eviction = {
            "apiVersion": f"policy/{self.version}",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self.kube.namespace},
        }
        return await self.kube.http.post(
            self.kube.at("pods", name, "eviction"), json=eviction, params=options
        )


@pytest.fixture
async def budgets(kube: Kube) -> Budgets:
    """The server's version of them, by discovery: `v1` is there from 1.21 on."""
    answer = await kube.http.get("/apis/policy/v1")
    listed = body(answer)["resources"] if answer.is_success else []
    found = any(each["name"] == "poddisruptionbudgets" for each in listed)
    return Budgets(kube, "v1" if found else "v1beta1")


async def running(kube: Kube, *names: str) -> None:
    """Pods that are placed and ready, as far as the server can know."""
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for name in names:
        await kube.create("pods", pod(name, LABELS, nodeName="none"))
        answer = await kube.patch(kube.at("pods", name, "status"), {"status": status})
        assert answer.status_code == 200, answer.text


async def ending(kube: Kube, name: str) -> bool:
    """Whether a pod was told to end."""
    return "deletionTimestamp" in (await kube.get(kube.at("pods", name)))["metadata"]


async def test_without_a_budget_a_pod_is_evicted(budgets: Budgets) -> None:
    """201, and it ends with its grace."""
    await running(budgets.kube, "p")
    answer = await budgets.evict("p")

    assert (answer.status_code, body(answer)["status"]) == (201, "Success")
    assert await ending(budgets.kube, "p")


async def test_a_budget_that_is_spent_refuses(budgets: Budgets) -> None:
    """429, which is to be tried again later, and says which budget it was."""
    kube = budgets.kube
    await running(kube, "p", "q")
    await budgets.create(minAvailable=1)
    status = await budgets.status()
    assert (status["disruptionsAllowed"], status["desiredHealthy"]) == (1, 1)
    assert (status["currentHealthy"], status["expectedPods"]) == (2, 2)
    assert (await budgets.evict("p")).status_code == 201

    refusal = refused(await budgets.evict("q"), 429, "TooManyRequests")
    assert refusal["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    assert refusal["details"]["causes"][0]["reason"] == "DisruptionBudget"
    assert "disruption budget b" in refusal["details"]["causes"][0]["message"]
    assert not await ending(kube, "q")


async def test_a_dry_run_asks_the_budget_and_spends_nothing(budgets: Budgets) -> None:
    """It may be asked again and again."""
    await running(budgets.kube, "p", "q")
    await budgets.create(minAvailable=1)

    async def allowed() -> bool:
        return bool((await budgets.status())["disruptionsAllowed"] == 1)

    await eventually(allowed)
    for _ in range(2):
        assert (await budgets.evict("p", dryRun="All")).status_code == 201
    assert not await ending(budgets.kube, "p")
    assert await allowed()


async def test_a_budget_allows_again_when_there_are_enough(budgets: Budgets) -> None:
    """It counts what is ready."""
    kube = budgets.kube
    await running(kube, "p")
    await budgets.create(minAvailable=1)
    refused(await budgets.evict("p"), 429, "TooManyRequests")
    await running(kube, "q")

    async def allowed() -> bool:
        return bool((await budgets.status())["disruptionsAllowed"] == 1)

    await eventually(allowed)
    assert (await budgets.evict("p")).status_code == 201


async def test_a_pod_that_does_not_run_is_evicted_whatever_the_budget(budgets: Budgets) -> None:
    """It serves nobody."""
    kube = budgets.kube
    await kube.create("pods", pod("waiting", LABELS))
    await budgets.create(minAvailable=1)

    assert (await budgets.evict("waiting")).status_code == 201
    refused(await kube.http.get(kube.at("pods", "waiting")), 404, "NotFound")


async def test_a_budget_by_share_refuses_for_pods_that_nothing_scales(budgets: Budgets) -> None:
    """A share of nothing known is nothing."""
    await running(budgets.kube, "p", "q")
    await budgets.create(counted=False, maxUnavailable=1)

    refused(await budgets.evict("p"), 429, "TooManyRequests")


async def test_two_budgets_over_one_pod_are_an_error(budgets: Budgets) -> None:
    """Neither is asked: 500, and the pod stays."""
    await running(budgets.kube, "p", "q")
    await budgets.create("one", minAvailable=1)
    await budgets.create("two", minAvailable=1)
    answer = await budgets.evict("p")

    assert answer.status_code == 500
    assert "more than one PodDisruptionBudget" in body(answer)["message"]
    assert not await ending(budgets.kube, "p")


async def test_an_eviction_names_its_pod(budgets: Budgets) -> None:
    """And the pod has to be there."""
    refused(await budgets.evict("none"), 404, "NotFound")
    await running(budgets.kube, "p")
    path = budgets.kube.at("pods", "p", "eviction")
    wrong = {
        "apiVersion": f"policy/{budgets.version}",
        "kind": "Eviction",
        "metadata": {"name": "other"},
    }

    refused(await budgets.kube.http.post(path, json=wrong), 400, "BadRequest")
