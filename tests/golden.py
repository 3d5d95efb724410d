"""What a model sees of each server, kept beside its tests: `--check` compares, `--write` renews.

A changed name, schema or sentence is a change of how agents behave, so it is read in a diff before
it is served. With the lists go the pages `docs/tools.md`, `docs/telemetry.md` and `docs/traps.md`.
The check fails when a server costs more than a model's attention is worth, and when a trap of a
contract has no test. The servers are put together without a component to talk to.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from pydantic import BaseModel
from rich.console import Console

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_policies.bundles import load_bundle
from interlock_servers.devices.client import NodeClient
from interlock_servers.devices.nodes import NodeSettings, NodesSettings
from interlock_servers.exchange.attached import requesting
from interlock_servers.exchange.bms import bms_face, isolation_face
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.server import exchange_face
from interlock_servers.exchange.settings import ExchangeSettings, RequestSettings, SupplyLimits
from interlock_servers.exchange.upstream import upstream_face
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.isv import isv_face, sending
from interlock_servers.flex.server import flex_face
from interlock_servers.flex.settings import FlexSettings, PublishSettings
from interlock_servers.flex.twin import make_key, write_jwks
from interlock_servers.identity import local_caller
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.gpu_face import devices_face
from interlock_servers.maxlps.group_changes import group_operations
from interlock_servers.maxlps.group_client import GroupClient
from interlock_servers.maxlps.group_server import dps_face, dps_groups_face
from interlock_servers.maxlps.operations import maxlps_operations
from interlock_servers.maxlps.server import maxlps_face
from interlock_servers.maxlps.settings import MaxlpsSettings
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.operations import nvsentinel_operations
from interlock_servers.nvsentinel.remediation import janitor_face, remediation_face
from interlock_servers.nvsentinel.server import nvsentinel_face
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.offer import Face
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import SystemClock
from interlock_tools.identity import Principal, PrincipalKind

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, it finds its sibling too
from tests import surface_table, telemetry_table, tool_table, traps_table
from tests.surface_table import Surface
from tests.tool_table import Tools

FOLDER = Path(__file__).parent / "servers"
# The further servers of a component.
PART_OF = {
    **dict.fromkeys(("dsx_exchange", "bms", "isolation"), "exchange"),
    **dict.fromkeys(("dps", "dps_groups", "devices"), "maxlps"),
    "grid_isv": "flex",
    **dict.fromkeys(("remediation", "janitor"), "nvsentinel"),
}
ORIGIN = "golden.example/ledger"
NOBODY = Principal(id="agent:nobody", kind=PrincipalKind.AGENT, authenticated_by="local")
Answer = dict[str, Any]


def faces(stack: ExitStack, folder: Path) -> Mapping[str, Face]:
    """Every face of a site, over clients that are never connected and a store that is thrown away.

    `stack` closes what was opened.
    """
    clock = SystemClock()
    mqtt = MqttSettings(brokers=("mqtt://127.0.0.1:1",), client_id="golden")
    key = make_key("golden-1")
    isv = "//grid/v1/isv/golden"
    key_file = folder / "isv.json"
    key_file.write_text(json.dumps(key.key.as_dict(private=True)))
    publish = PublishSettings(identifier="golden", mqtt=mqtt, key_file=key_file, kid=key.kid)
    exchange = ExchangeClient(ExchangeSettings(mqtt=mqtt, site_id="lab"), clock)
    flex = FlexClient(
        FlexSettings(
            mqtt=mqtt,
            jwks_file=write_jwks(folder / "jwks.json", [key]),
            trusted={isv: (key.kid,)},
            site_id="lab",
            feeds=("feed-a",),
            publish=publish,
        ),
        clock,
    )
    dps = DpsClient(MaxlpsSettings(address="127.0.0.1:1", tls=False, site_id="lab"), clock)
    node = NodeSettings(node_id="node-001", address="127.0.0.1:1", tls=False)
    nodes = NodeClient(NodesSettings(nodes=(node,)), clock)
    facts = FactRegistry()
    own = maxlps_operations(dps, facts, "lab")
    groups = GroupClient(dps)
    grouped = group_operations(groups, facts, "lab")
    engine = create_store_engine(f"sqlite:///{folder / 'store.db'}")
    stack.callback(engine.dispose)
    create_tables(engine)
    store = Store(engine)
    asks = RequestSettings(
        integration="GOLDEN",
        mqtt=mqtt,
        supply=SupplyLimits(min_c=20, max_c=35, safe_c=25),
        isolation=True,
        not_ready={"Status": 0, "Available": 0},
    )
    asked = requesting(exchange, asks, store, clock)
    cluster = ClusterSettings(name="lab", kubeconfig=folder / "kubeconfig")
    sentinel = NvsentinelClient(NvsentinelSettings(cluster=cluster, operations=True), clock)
    cared = nvsentinel_operations(sentinel)
    sends = sending(flex, publish, store, facts, clock)
    operations = (*own, *grouped, *asked.operations, *sends.operations, *cared)
    guard = Guard(
        store=store,
        ledger=stack.enter_context(
            Ledger(engine, Signer.generate(ORIGIN), origin=ORIGIN, clock=clock)
        ),
        gate=load_bundle("supervised", {op.name: op.effect for op in operations}),
        facts=facts,
        clock=clock,
        rules=SiteRules(site_id="lab", gpus=512, hosts=64),
        operations=operations,
    )
    who = local_caller(NOBODY)
    return {
        "exchange": exchange_face(exchange, guard=guard, who=who),
        "dsx_exchange": upstream_face(exchange, guard=guard, who=who),
        "bms": bms_face(asked.operations, asked.wires, guard=guard, who=who),
        "isolation": isolation_face(asked.operations, guard=guard, who=who),
        "flex": flex_face(flex, clock=clock, guard=guard, who=who),
        "grid_isv": isv_face(sends.operations, guard=guard, who=who),
        "maxlps": maxlps_face(own, facts=facts, site_id="lab", guard=guard, who=who),
        "devices": devices_face(nodes, facts=facts, site_id="lab", guard=guard, who=who),
        "dps_groups": dps_groups_face(grouped, guard=guard, who=who),
        "dps": dps_face(grouped, groups, facts=facts, site_id="lab", guard=guard, who=who),
        "nvsentinel": nvsentinel_face(sentinel, guard=guard, who=who),
        "remediation": remediation_face(cared, guard=guard, who=who),
        "janitor": janitor_face(cared, guard=guard, who=who),
    }


async def answers() -> dict[str, Answer]:
    """The whole answer of each server to `tools/list`, by component, the tools by name."""
    given: dict[str, Answer] = {}
    with tempfile.TemporaryDirectory(prefix="interlock-golden-") as name, ExitStack() as stack:
        for component, face in faces(stack, Path(name)).items():
            async with Client(face.server()) as client:
                listed = await client.list_tools()
            answer = listed.model_dump(mode="json", by_alias=True, exclude_none=True)
            answer["tools"].sort(key=lambda tool: str(tool["name"]))
            given[component] = answer
    return given


async def surfaces() -> dict[str, Surface]:
    """What each server offers besides tools: resources, families of them, and prompts, by name."""
    given: dict[str, Surface] = {}
    with tempfile.TemporaryDirectory(prefix="interlock-golden-") as name, ExitStack() as stack:
        for component, face in faces(stack, Path(name)).items():
            async with Client(face.server()) as client:
                resources = (await client.list_resources()).resources
                templates = (await client.list_resource_templates()).resource_templates
                prompts = (await client.list_prompts()).prompts
            given[component] = {
                "resources": _plain(resources, "uri"),
                "templates": _plain(templates, "uriTemplate"),
                "prompts": _plain(prompts, "name"),
            }
    return given


def _plain(listed: Sequence[BaseModel], key: str) -> Tools:
    items = [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in listed]
    return sorted(items, key=lambda item: str(item[key]))


async def seen_by_a_model() -> dict[str, Tools]:
    """What `tools/list` of each server gives, by component, the tools by name."""
    return {component: answer["tools"] for component, answer in (await answers()).items()}


async def instructions(component: str) -> str:
    """What a server says of itself when a client connects."""
    with tempfile.TemporaryDirectory(prefix="interlock-golden-") as name, ExitStack() as stack:
        async with Client(faces(stack, Path(name))[component].server()) as client:
            return client.instructions or ""


def golden_file(component: str) -> Path:
    """Where the list of a component, or of a further server of one, is kept."""
    return FOLDER / PART_OF.get(component, component) / _named("tools", component)


def surface_file(component: str) -> Path:
    """Where its resources and prompts are kept."""
    return FOLDER / PART_OF.get(component, component) / _named("surface", component)


def _named(what: str, component: str) -> str:
    return f"{what}_{component}.json" if component in PART_OF else f"{what}.json"


def as_text(tools: Tools | Surface) -> str:
    """The list as it is kept: indented and sorted, so that a diff shows what changed."""
    return json.dumps(tools, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def changed(seen: Mapping[str, Tools]) -> list[str]:
    """The components whose list is not the one that is kept, or is not kept at all."""
    return [
        component
        for component, tools in seen.items()
        if not golden_file(component).is_file()
        or golden_file(component).read_text("utf-8") != as_text(tools)
    ]


def changed_surfaces(offered: Mapping[str, Surface]) -> list[str]:
    """The components whose resources or prompts are not those that are kept."""
    return [
        component
        for component, surface in offered.items()
        if not surface_file(component).is_file()
        or surface_file(component).read_text("utf-8") != as_text(surface)
    ]


def too_large(given: Mapping[str, Answer]) -> list[str]:
    """The components whose whole answer costs more than it may."""
    return [name for name, answer in given.items() if cost(answer) > tool_table.LIMIT_TOKENS]


def cost(answer: Answer) -> int:
    """What a server's whole answer to `tools/list` costs, in tokens by the byte rule."""
    return tool_table.tokens(tool_table.size_bytes(answer))


def main() -> int:
    """Write or compare; 1 where a list or the table differs, or a server costs too much."""
    parser = argparse.ArgumentParser(description="What a model sees of each server.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="fail where a kept list differs")
    mode.add_argument("--write", action="store_true", help="keep the lists as they are now")
    wanted = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    given = anyio.run(answers)
    seen = {component: answer["tools"] for component, answer in given.items()}
    offered = anyio.run(surfaces)
    page = tool_table.as_markdown(given) + surface_table.as_markdown(offered)
    if wanted.write:
        for component, tools in seen.items():
            golden_file(component).parent.mkdir(parents=True, exist_ok=True)
            golden_file(component).write_text(as_text(tools), "utf-8")
            surface_file(component).write_text(as_text(offered[component]), "utf-8")
        tool_table.FILE.write_text(page, "utf-8")
        telemetry_table.FILE.write_text(telemetry_table.as_markdown(), "utf-8")
        traps_table.FILE.write_text(traps_table.as_markdown(), "utf-8")
    for component, answer in given.items():
        console.print(
            f"{component}: {len(answer['tools'])} tools, {tool_table.size_bytes(answer)} bytes, "
            f"about {cost(answer)} of {tool_table.LIMIT_TOKENS} tokens"
        )
    wrong = [f"a model sees something else of {component}" for component in changed(seen)]
    wrong += [f"{component} offers something else" for component in changed_surfaces(offered)]
    if not tool_table.FILE.is_file() or tool_table.FILE.read_text("utf-8") != page:
        wrong.append("docs/tools.md is stale")
    if telemetry_table.is_stale():
        wrong.append("docs/telemetry.md is stale")
    if traps_table.is_stale():
        wrong.append("docs/traps.md is stale")
    if wrong:
        wrong.append("run `make golden` and read the diff")
    wrong += traps_table.wrong(traps_table.named(), traps_table.claimed())
    wrong += [f"{component} costs more than it may" for component in too_large(given)]
    if wrong:
        console.print(f"{'; '.join(wrong)}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
