"""A real Kubernetes control plane on loopback ports, from the binaries in KUBEBUILDER_ASSETS.

That variable is the convention of envtest: a folder with `etcd` and `kube-apiserver`; controllers
and hollow nodes need `kube-controller-manager`, `kube-scheduler` and `kubemark` beside them.
"""

import os
import secrets
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import Process
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from interlock_servers.transports.kube.embedded.personas import (
    ADMIN,
    PERSONAS,
    Persona,
    write_kubeconfig,
)

VARIABLE = "KUBEBUILDER_ASSETS"
START_TIMEOUT_S = 60.0
NODES_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 10.0
ATTEMPTS = 3  # a port that was free can be taken before the program binds it
CONTROL_PLANE = ("etcd", "kube-apiserver")
CONTROLLERS = ("kube-controller-manager",)
NODES = ("kube-scheduler", "kubemark")


class ClusterError(Exception):
    """A program of the cluster did not start; the text ends with what it said last."""


@dataclass(frozen=True)
class Cluster:
    """A running API server and how to reach it; `kubeconfig` is the administrator's."""

    url: str
    ca_file: Path
    etcd_url: str
    tokens: Mapping[str, str]
    kubeconfigs: Mapping[str, Path]

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.kubeconfigs[ADMIN.name]

    def client(self, persona: str = ADMIN.name, timeout_s: float = 30.0) -> httpx2.AsyncClient:
        """A raw HTTP client that sends this persona's token."""
        return httpx2.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.tokens[persona]}"},
            verify=ssl.create_default_context(cafile=str(self.ca_file)),
            timeout=timeout_s,
            trust_env=False,
        )

    async def compact(self) -> None:
        """Let etcd forget every state but the present one, as it does by itself after minutes."""
        async with httpx2.AsyncClient(base_url=self.etcd_url, trust_env=False) as etcd:
            asked = await etcd.post("/v3/kv/range", json={"key": "AA=="})
            revision = asked.raise_for_status().json()["header"]["revision"]
            done = await etcd.post("/v3/kv/compaction", json={"revision": revision})
            done.raise_for_status()


def why_not(*, controllers: bool = False, nodes: int = 0) -> str | None:
    """Why no such cluster can be started here; None where one can."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return f"{VARIABLE} is not set: no real API server (see envtest for the binaries)"
    wanted = [*CONTROL_PLANE]
    wanted += CONTROLLERS if controllers or nodes else ()
    wanted += NODES if nodes else ()
    missing = [name for name in wanted if not os.access(Path(folder) / name, os.X_OK)]
    return f"{VARIABLE} lacks {', '.join(missing)}" if missing else None


def real_server_or_skip(*, controllers: bool = False, nodes: int = 0) -> None:
    """Skip the test, with the reason, where no cluster can be started; where one must, fail."""
    reason = why_not(controllers=controllers, nodes=nodes)
    if reason is not None:
        if os.environ.get("CI") == "true" and os.environ.get(VARIABLE):
            pytest.fail(f"CI=true, and {reason}")
        pytest.skip(reason)


@asynccontextmanager
async def running_cluster(
    folder: Path,
    *,
    nodes: int = 0,
    controllers: bool = False,
    personas: Sequence[Persona] = PERSONAS,
    compaction: timedelta | None = None,
    node_labels: Mapping[str, str] | None = None,
) -> AsyncIterator[Cluster]:
    """Start a cluster that keeps everything in `folder`, and stop what was started at the end.

    Args:
        folder: an empty folder of its own.
        nodes: hollow nodes, `hollow-0` and up; they bring the controllers and the scheduler.
        controllers: the garbage collector, namespaces, disruption budgets, jobs and the rest.
        personas: callers; each gets a token, a kubeconfig and its RBAC rules.
        compaction: how long old states are kept, without the server's cache, so that a watch
            from before them really ends in 410; by default etcd's minutes and the cache.
        node_labels: labels of every hollow node.

    Raises:
        ClusterError: a program is missing, ended, or was not ready in time.
    """
    reason = why_not(controllers=controllers, nodes=nodes)
    if reason is not None:
        raise ClusterError(reason)
    for attempt in range(1, ATTEMPTS + 1):
        async with AsyncExitStack() as stack:
            part = _Parts(folder / str(attempt), stack)
            try:
                cluster = await part.control_plane(personas, compaction)
            except ClusterError:
                if attempt == ATTEMPTS:
                    raise
                continue
            if controllers or nodes:
                await part.controllers(cluster)
            if nodes:
                await part.nodes(cluster, nodes, node_labels or {})
            yield cluster
            return


class _Parts:
    """The programs of one cluster, each started after what it needs."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._binaries = Path(os.environ[VARIABLE])
        folder.mkdir(parents=True)

    async def control_plane(
        self, personas: Sequence[Persona], compaction: timedelta | None
    ) -> Cluster:
        client, peer, secure = free_port(), free_port(), free_port()
        etcd_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        etcd = await self._start(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
        )
        async with httpx2.AsyncClient(trust_env=False) as http:
            await _until_ready(http, f"{etcd_url}/health", etcd)
        key, certs = self._folder / "sa.key", self._folder / "certs"
        _write_key(key)
        tokens = {persona.name: secrets.token_hex(16) for persona in personas}
        table = self._folder / "tokens.csv"
        table.touch(mode=0o600)
        table.write_text("".join(_token_line(tokens[each.name], each) for each in personas))
        forgetting: list[str] = []
        if compaction is not None:
            seconds = f"{compaction.total_seconds():g}s"
            forgetting = [f"--etcd-compaction-interval={seconds}", "--watch-cache=false"]
        server = await self._start(
            "kube-apiserver",
            f"--etcd-servers={etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={certs}",
            "--service-cluster-ip-range=10.96.0.0/24",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            f"--token-auth-file={table}",
            "--disable-admission-plugins=ServiceAccount",
            "--anonymous-auth=false",
            *forgetting,
        )
        ca_file, url = certs / "apiserver.crt", f"https://127.0.0.1:{secure}"
        await _until(ca_file.exists, server, "its certificate")
        cluster = Cluster(
            url=url,
            ca_file=ca_file,
            etcd_url=etcd_url,
            tokens=tokens,
            kubeconfigs={
                name: write_kubeconfig(self._folder / f"{name}.kubeconfig", url, token, ca_file)
                for name, token in tokens.items()
            },
        )
        async with cluster.client() as admin:
            await _until_ready(admin, "/readyz", server)
            for persona in personas:
                for made in persona.rbac_objects():
                    plural = f"{made['kind'].lower()}s"
                    path = f"/apis/rbac.authorization.k8s.io/v1/{plural}"
                    (await admin.post(path, json=made)).raise_for_status()
        return cluster

    async def controllers(self, cluster: Cluster) -> None:
        port = free_port()
        manager = await self._start(
            "kube-controller-manager",
            f"--kubeconfig={cluster.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--port=0",
            "--leader-elect=false",
            f"--cert-dir={self._folder / 'manager'}",
            f"--service-account-private-key-file={self._folder / 'sa.key'}",
            "--node-monitor-period=2s",
            "--node-monitor-grace-period=20s",
            "--pod-eviction-timeout=20s",
        )
        certificate = self._folder / "manager" / "kube-controller-manager.crt"
        await _until(certificate.exists, manager, "its certificate")
        context = ssl.create_default_context(cafile=str(certificate))
        async with httpx2.AsyncClient(verify=context, trust_env=False) as http:
            await _until_ready(http, f"https://127.0.0.1:{port}/healthz", manager)

    async def nodes(self, cluster: Cluster, count: int, labels: Mapping[str, str]) -> None:
        await self._start(
            "kube-scheduler",
            f"--kubeconfig={cluster.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--port=0",
            "--leader-elect=false",
        )
        started = [
            await self._start(
                "kubemark",
                "--morph=kubelet",
                f"--name=hollow-{number}",
                f"--kubeconfig={cluster.kubeconfig}",
                f"--kubelet-port={free_port()}",
                f"--kubelet-read-only-port={free_port()}",
                f"--node-labels={','.join(f'{k}={v}' for k, v in labels.items())}",
                "--logtostderr=true",
            )
            for number in range(count)
        ]
        async with cluster.client() as admin:
            try:
                with anyio.fail_after(NODES_TIMEOUT_S):
                    while _ready_nodes((await admin.get("/api/v1/nodes")).json()) < count:
                        for process in started:
                            process.check()
                        await anyio.sleep(0.25)
            except TimeoutError:
                raise ClusterError(
                    f"{count} nodes were not ready in {NODES_TIMEOUT_S:g} s"
                ) from None

    async def _start(self, name: str, *arguments: str) -> "_Program":
        log_path = self._folder / f"{name}-{secrets.token_hex(2)}.log"
        with log_path.open("wb") as log:
            process = await anyio.open_process(
                [str(self._binaries / name), *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        program = _Program(name, process, log_path)
        self._stack.push_async_callback(program.stop)
        return program


@dataclass(frozen=True)
class _Program:
    name: str
    process: Process
    log_path: Path

    def check(self) -> None:
        """Raises ClusterError once it has ended."""
        if self.process.returncode is not None:
            raise ClusterError(f"{self.name} ended with {self.process.returncode}; {self.said()}")

    def said(self) -> str:
        """The end of its log."""
        return self.log_path.read_text(errors="replace")[-1000:].strip()

    async def stop(self) -> None:
        """End it, by asking first."""
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                self.process.terminate()
            with anyio.move_on_after(STOP_TIMEOUT_S):
                await self.process.wait()
            if self.process.returncode is None:
                with suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()
            await self.process.aclose()


async def _until_ready(http: httpx2.AsyncClient, url: str, program: _Program) -> None:
    answered: list[bool] = []

    async def ask() -> None:
        with suppress(httpx2.TransportError):
            answered.append((await http.get(url)).is_success)

    try:
        with anyio.fail_after(START_TIMEOUT_S):
            while not (answered and answered[-1]):
                program.check()
                await ask()
                await anyio.sleep(0.05)
    except TimeoutError:
        raise ClusterError(f"{program.name}: not ready; {program.said()}") from None
    program.check()  # otherwise another server answered on its port


async def _until(condition: Any, program: _Program, what: str) -> None:
    try:
        with anyio.fail_after(START_TIMEOUT_S):
            while not condition():
                program.check()
                await anyio.sleep(0.05)
    except TimeoutError:
        raise ClusterError(f"{program.name}: no {what}; {program.said()}") from None


def _ready_nodes(nodes: Any) -> int:
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
        for node in nodes["items"]
    )


def _token_line(token: str, persona: Persona) -> str:
    groups = f',"{",".join(persona.groups)}"' if persona.groups else ""
    return f"{token},{persona.name},{persona.name}{groups}\n"


def _write_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
