"""A pod of ours as processes of this machine: its volumes as folders, its containers as it says.

What only a kernel could show, a root filesystem that is read-only or dropped capabilities, it does
not show.
"""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
from anyio.abc import Process

from tests.kube.real import free_port
from tests.packaging.kustomize import Json, only

INTERLOCK: Final = Path(sys.executable).with_name("interlock")
LISTENS: Final = 'host = "0.0.0.0"'
Secrets = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Pod:
    """A pod that has begun; `paths` is where each of its volumes is here."""

    spec: Json
    paths: Mapping[str, Path]
    url: str
    process: Process
    log: Path

    @property
    def container(self) -> Json:
        """Its only one."""
        (container,) = self.spec["containers"]
        found: Json = container
        return found

    async def started(self) -> None:
        """Return once the startup probe succeeds, within the time that it gives.

        Raises:
            AssertionError: the process ended, or that time is over.
        """
        probe = self.container["startupProbe"]
        with anyio.move_on_after(probe["periodSeconds"] * probe["failureThreshold"]):
            while self.process.returncode is None:
                try:
                    if await self.answers("startupProbe") == 200:
                        return
                except httpx2.TransportError:
                    await anyio.sleep(0.1)
        raise AssertionError(f"it did not start: {self.log.read_text()[-2000:]}")

    async def answers(self, probe: str) -> int:
        """The status that the probe gets, asked as the kubelet asks: by the pod's address."""
        asked = self.container[probe]["httpGet"]
        (port,) = (p for p in self.container["ports"] if p["name"] == asked["port"])
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False) as http:
            host = {"Host": f"10.0.0.7:{port['containerPort']}"}
            return (await http.get(asked["path"], headers=host)).status_code

    async def ended(self) -> int | None:
        """Ask it to end; its exit status, or None where its grace was not enough."""
        self.process.terminate()
        with anyio.move_on_after(self.spec["terminationGracePeriodSeconds"]):
            return await self.process.wait()
        return None


@asynccontextmanager
async def running_pod(
    objects: list[Json], folder: Path, name: str, secrets: Secrets
) -> AsyncIterator[Pod]:
    """Run a pod of the Deployment among these objects; its claims are shared within `folder`.

    Raises:
        KeyError: it needs a secret that is not there.
        CalledProcessError: an init container failed.
    """
    spec = only(objects, "Deployment")["spec"]["template"]["spec"]
    port = free_port()
    maps = {each["metadata"]["name"]: each["data"] for each in objects if "data" in each}
    paths: dict[str, Path] = {}
    for volume in spec["volumes"]:
        claim = volume.get("persistentVolumeClaim")
        path = folder / (claim["claimName"] if claim else f"{name}/{volume['name']}")
        path.mkdir(parents=True, exist_ok=True)
        paths[volume["name"]] = path
    moves = _moves(spec, paths)
    for volume in spec["volumes"]:
        files: Mapping[str, str] = {}
        if "configMap" in volume:
            here = f'host = "127.0.0.1"\nport = {port}'
            found = maps[volume["configMap"]["name"]]
            assert all(LISTENS in text for text in found.values())
            files = {n: _moved(text, moves).replace(LISTENS, here) for n, text in found.items()}
        elif "secret" in volume:
            wanted = volume["secret"]
            files = secrets.get(wanted["secretName"], {})
            if not files and not wanted.get("optional"):
                raise KeyError(wanted["secretName"])
        for file, text in files.items():
            (paths[volume["name"]] / file).write_text(text)
            (paths[volume["name"]] / file).chmod(0o440)  # as an fsGroup leaves them
    for container in spec.get("initContainers", ()):
        environment = _environment(container, name, secrets, paths)
        await anyio.run_process(_command(container, moves), env=environment)
    (container,) = spec["containers"]
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = await anyio.open_process(
            _command(container, moves),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            env=_environment(container, name, secrets, paths),
        )
    try:
        yield Pod(spec, paths, f"http://127.0.0.1:{port}", process, log)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.aclose()


def _moves(spec: Json, paths: Mapping[str, Path]) -> dict[str, str]:
    """Where each place of the containers is here; the temporary folder goes by its variable."""
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    return {
        mount["mountPath"]: str(paths[mount["name"]])
        for container in containers
        for mount in container["volumeMounts"]
        if mount["mountPath"] != "/tmp"  # noqa: S108 (the pod's own)
    }


def _moved(text: str, moves: Mapping[str, str]) -> str:
    longest_first = sorted(moves, key=len, reverse=True)
    pattern = "|".join(re.escape(place) for place in longest_first)
    return re.sub(rf"({pattern})(?=[/\s\"]|$)", lambda found: moves[found[1]], text)


def _command(container: Json, moves: Mapping[str, str]) -> list[str]:
    whole = [*container.get("command", [str(INTERLOCK)]), *container.get("args", ())]
    return [_moved(part, moves) for part in whole]


def _environment(
    container: Json, pod: str, secrets: Secrets, paths: Mapping[str, Path]
) -> dict[str, str]:
    made = {**os.environ, "TMPDIR": str(paths["tmp"])}
    for each in container.get("env", ()):
        source: Any = each["valueFrom"]
        if "secretKeyRef" in source:
            made[each["name"]] = secrets[source["secretKeyRef"]["name"]][
                source["secretKeyRef"]["key"]
            ]
        elif source["fieldRef"]["fieldPath"] == "metadata.name":
            made[each["name"]] = pod
    return made
