"""The pods start from what the overlays say, answer their probes, and end in time."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from interlock_console.settings import load
from interlock_guardrails.ledger.signing import Signer
from tests.guardrails.stores import start_postgres
from tests.packaging.kustomize import NAMES, OVERLAYS, only, rendered
from tests.packaging.pod import Pod, Secrets, running_pod

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.fixture(params=NAMES)
async def pods(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Pod]]:
    """As many as the overlay has replicas; the bus that it names is nowhere."""
    objects = rendered(OVERLAYS / request.param)
    replicas = only(objects, "Deployment")["spec"]["replicas"]
    secrets: dict[str, dict[str, str]] = {"interlock": {"exchange-token": "not-a-token"}}
    async with AsyncExitStack() as stack:
        if "postgresql" in request.param:
            server = stack.enter_context(start_postgres())
            url = server.url(server.create()).render_as_string(hide_password=False)
            secrets |= {"interlock-store": {"url": url}, "interlock-keys": keys(tmp_path)}
        yield [
            await stack.enter_async_context(
                running_pod(objects, tmp_path, f"interlock-{number}", secrets)
            )
            for number in range(replicas)
        ]


def keys(folder: Path) -> dict[str, str]:
    """The keys that replicas share, as the Secret has them."""
    for name in ("vote-key.pem", "ledger-key.pem"):
        Signer.generate("any").save(folder / name)
    return {name: (folder / name).read_text() for name in ("vote-key.pem", "ledger-key.pem")}


async def test_every_replica_answers_its_probes_and_ends_in_time(pods: list[Pod]) -> None:
    """Also where the bus does not answer: whether a component does is no reason for a restart."""
    for pod in pods:
        await pod.started()
    for pod in pods:
        for probe in PROBES:
            assert await pod.answers(probe) == 200
    for pod in pods:
        assert await pod.ended() == 0, pod.log.read_text()[-2000:]


@pytest.mark.parametrize("overlay", NAMES)
def test_the_settings_of_an_overlay_are_valid_and_as_careful_as_its_name(overlay: str) -> None:
    """Tokens come from an issuer: those of our own would be printed into the pod's log."""
    settings = load(OVERLAYS / overlay / "interlock.toml")
    container = only(rendered(OVERLAYS / overlay), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ][0]

    assert settings.http.host == "0.0.0.0"  # noqa: S104 (inside the pod)
    assert [port["containerPort"] for port in container["ports"]] == [settings.http.port]
    assert settings.http.authorization is not None
    assert settings.http.read_only == (overlay == "read-only")
    assert settings.bundle == ("observe" if overlay == "read-only" else "supervised")
    assert (settings.store_url_env is not None) == ("postgresql" in overlay)


async def test_each_replica_has_a_client_id_of_its_own_and_keys_that_only_it_can_read(
    tmp_path: Path,
) -> None:
    """A broker drops whoever had the id before; a key that others may read is refused."""
    objects = rendered(OVERLAYS / "guarded-postgresql")
    secrets: Secrets = {
        "interlock": {"exchange-token": "not-a-token"},
        "interlock-store": {"url": "postgresql://nowhere.invalid/interlock"},
        "interlock-keys": keys(tmp_path),
    }
    names = []
    for number in range(2):
        async with running_pod(objects, tmp_path, f"interlock-{number}", secrets) as pod:
            data = pod.paths["data"]
        settings = tomllib.loads((data / "interlock.toml").read_text())
        names += [settings["exchange"]["mqtt"]["client_id"]]
        names += [settings["sinks"]["mqtt"]["mqtt"]["client_id"]]
        Signer.load("votes", data / "vote-key.pem")
        Signer.load("ledger", data / "ledger-key.pem")

    assert names == [
        "interlock-exchange-interlock-0",
        "interlock-ledger-interlock-0",
        "interlock-exchange-interlock-1",
        "interlock-ledger-interlock-1",
    ]
