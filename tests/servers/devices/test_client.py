"""Many nodes read at once: the one that lies or stops is named, and the others go on."""

import resource
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interlock_plant import Job, JobClass, Plant, SteadyLoad, lab_site
from interlock_servers.devices.agent import NodeAgent
from interlock_servers.devices.client import NodeClient, NodeState
from interlock_servers.devices.models import known
from interlock_servers.devices.node_models import Cap
from interlock_servers.devices.nodes import NodeSettings, NodesSettings
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.server import NodeServer
from interlock_servers.devices.twin import HostTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_tools.errors import NotFoundError
from tests.servers.devices.conftest import START
from tests.servers.devices.nodes import (
    NODE,
    OTHER,
    PATIENCE_S,
    Nodes,
    StepClock,
    agent_settings,
    client_of,
    running,
)

# ── reading ───────────────────────────────────────────────────────────────────────────────────


async def test_what_is_read_over_the_wire_is_what_the_agent_saw(nodes: Nodes) -> None:
    """Every value, and every reason for having none."""
    await nodes.step(3)
    async with client_of(nodes) as client:
        views = await client.read()
    assert set(views) == {NODE, OTHER}
    for node_id, view in views.items():
        assert view.state is NodeState.FRESH
        assert view.answer is not None
        assert view.answer.gpus == nodes.agents[node_id].answer().gpus
        assert any(gpu.unread() for gpu in view.answer.gpus)


async def test_a_node_that_stops_goes_stale_and_the_others_go_on(nodes: Nodes) -> None:
    """Its last reading stays with its age until it is too old to be used."""
    gone = nodes.settings().nodes[0].model_copy(update={"address": "127.0.0.1:1"})
    async with client_of(nodes, fresh_s=5.0) as client:
        await client.read()
        client._nodes[NODE]._settings = gone
        await client._nodes[NODE].close()
        client._nodes[NODE].open()
        await nodes.step(3)
        soon = await client.read()
        await nodes.step(3)
        later = await client.read()
    assert (soon[NODE].state, soon[OTHER].state) == (NodeState.FRESH, NodeState.FRESH)
    assert "does not answer" in soon[NODE].why
    assert (later[NODE].state, later[OTHER].state) == (NodeState.STALE, NodeState.FRESH)
    assert later[NODE].observed_at == START
    assert not later[NODE].is_lying


async def test_a_node_that_nobody_knows_is_no_node(nodes: Nodes) -> None:
    """A misspelt one must not be read as one that is silent."""
    async with client_of(nodes) as client:
        with pytest.raises(NotFoundError, match="node-404"):
            await client.read(["node-404"])


# ── certificates ──────────────────────────────────────────────────────────────────────────────


def issue(folder: Path, name: str, issuer: str | None = None) -> None:
    """A key and a certificate of this name, signed by `issuer` or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signed_by = key, subject
    if issuer is not None:
        loaded = serialization.load_pem_private_key((folder / f"{issuer}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
        signed_by = x509.load_pem_x509_certificate((folder / f"{issuer}.pem").read_bytes()).subject
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.mark.parametrize(
    ("who", "token", "reads", "sets"),
    [
        ("guard", "writer", True, True),
        ("guard", "reader", True, False),
        ("watcher", "writer", True, False),
        ("stranger", "writer", False, False),
        (None, "writer", False, False),
        ("forged", "writer", False, False),
    ],
)
async def test_certificate_and_token_are_both_asked_and_the_less_counts(
    plant: Plant,
    step_clock: StepClock,
    tmp_path: Path,
    who: str | None,
    token: str,
    reads: bool,
    sets: bool,
) -> None:
    """Over mutual TLS; a stolen token without its certificate opens nothing."""
    for name, issuer in (
        ("ca", None),
        ("node", "ca"),
        ("guard", "ca"),
        ("watcher", "ca"),
        ("stranger", "ca"),
        ("forged", None),
    ):
        issue(tmp_path, name, issuer)
    agent = NodeAgent(
        agent_settings(
            tmp_path,
            NODE,
            listen="127.0.0.1:0",
            cert_file=tmp_path / "node.pem",
            key_file=tmp_path / "node.key",
            client_ca_file=tmp_path / "ca.pem",
            readers=frozenset({"watcher"}),
            writers=frozenset({"guard", "forged"}),
        ),
        step_clock,
        lambda: NvmlHost(step_clock, NvmlTwin(HostTwin(plant, NODE))),
        takes_writes=True,
    )
    async with agent, NodeServer(agent, step_clock) as server:
        shown: dict[str, Any] = {}
        if who is not None:
            shown = {"cert_file": tmp_path / f"{who}.pem", "key_file": tmp_path / f"{who}.key"}
        node = NodeSettings(
            node_id=NODE,
            address=f"localhost:{server.address.rpartition(':')[2]}",
            ca_file=tmp_path / "ca.pem",
            token_file=tmp_path / token,
            **shown,
        )
        async with NodeClient(NodesSettings(nodes=(node,)), step_clock) as client:
            with anyio.fail_after(PATIENCE_S):
                view = (await client.read())[NODE]
                key = f"GPU-{NODE}-0"
                caps = {NODE: [Cap(key, 450.0, 600.0, 30.0)]}
                answer = (await client.set_limits(caps, change_id="chg-1"))[NODE]
    assert (view.answer is not None) is reads, view.why
    assert isinstance(answer, tuple) is sets, answer


# ── size ──────────────────────────────────────────────────────────────────────────────────────


async def test_512_gpus_of_64_nodes_are_read_within_half_a_second(
    step_clock: StepClock, tmp_path: Path
) -> None:
    """Client and 64 agents share this process; measured in processor time, the best of five."""
    site = lab_site()
    jobs = (Job("pretrain", "aurora", JobClass.TRAIN, tuple(range(site.gpu_count))),)
    plant = Plant(site, jobs, seed=7, start=START, load=SteadyLoad(jobs))
    async with running(plant, step_clock, tmp_path) as nodes, client_of(nodes) as client:
        await client.read()  # connects
        spent_s = []
        for _ in range(5):
            await nodes.step()
            before = resource.getrusage(resource.RUSAGE_SELF)
            views = await client.read()
            after = resource.getrusage(resource.RUSAGE_SELF)
            spent_s.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    gpus = [gpu for view in views.values() if view.answer for gpu in view.answer.gpus]
    assert len(gpus) == 512
    assert all(view.state is NodeState.FRESH for view in views.values())
    assert all(known(gpu.power_w) is not None for gpu in gpus)
    assert min(spent_s) <= 0.5, spent_s


async def test_a_few_nodes_that_do_not_answer_do_not_hold_the_others_up(
    nodes: Nodes, step_clock: StepClock
) -> None:
    """All are asked at the same time, and each has its own deadline."""
    asked = nodes.settings(deadline_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # connects, and says nothing
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        mute = NodeSettings(node_id="node-mute", address=address, tls=False)
        three = asked.model_copy(update={"nodes": (*asked.nodes, mute)})
        async with NodeClient(three, step_clock) as client:
            with anyio.fail_after(PATIENCE_S):
                views = await client.read()
    assert [view.state for view in views.values()] == [
        NodeState.FRESH,
        NodeState.FRESH,
        NodeState.NEVER,
    ]
