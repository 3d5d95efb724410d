"""One site put together: components, guard, worker and ledger, on one injected clock."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from pydantic import ConfigDict

from interlock_guardrails.approvals import Approvals
from interlock_guardrails.autonomy import Autonomy
from interlock_guardrails.break_glass import BreakGlass
from interlock_guardrails.clearing import Clearing
from interlock_guardrails.delegations import Delegations
from interlock_guardrails.engine import create_store_engine, store_address
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.federation import ListApprovals
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.migrations import migrate
from interlock_guardrails.plans import effects, offer_plans
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_guardrails.worker import Worker
from interlock_policies.bundles import load_bundle
from interlock_servers.alerts import Alerts, AlertSettings
from interlock_servers.checkpoint_sink import SinkSettings, open_ledger
from interlock_servers.exchange.attached import Requesting, requesting
from interlock_servers.exchange.bms import bms_face, isolation_face
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.facts import ExchangeFacts
from interlock_servers.exchange.server import exchange_face
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.exchange.upstream import upstream_face
from interlock_servers.federation.client import Upstream
from interlock_servers.federation.joined import Federation
from interlock_servers.federation.settings import FederatedServers
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.facts import FlexFacts
from interlock_servers.flex.isv import NAME as GRID_ISV
from interlock_servers.flex.isv import Sending, isv_face, sending
from interlock_servers.flex.meter_record import FILE_NAME as SITE_METER
from interlock_servers.flex.meter_record import MeterRecord
from interlock_servers.flex.server import flex_face
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.identity import WhoCalls
from interlock_servers.maxlps.attached import Powering, powering
from interlock_servers.maxlps.group_changes import group_operations
from interlock_servers.maxlps.group_client import GroupClient
from interlock_servers.maxlps.group_facts import GroupFacts
from interlock_servers.maxlps.group_server import dps_face, dps_groups_face
from interlock_servers.maxlps.node_settings import PowerTables
from interlock_servers.maxlps.operations import maxlps_operations
from interlock_servers.maxlps.server import maxlps_face
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.offer import Face
from interlock_servers.readings import readable
from interlock_tools.clock import Clock

if TYPE_CHECKING:
    from interlock_servers.nvsentinel.attached import NvsentinelPart


class SiteSettings(PowerTables):
    """Everything that a site is made from; frozen, read once.

    `data_dir` keeps the store, the keys and the published checkpoints; `store_url`, or the variable
    that `store_url_env` names, is where a store is that replicas share. A component that is None is
    not served.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: SiteRules
    bundle: str = "observe"
    data_dir: Path
    store_url: str | None = None
    store_url_env: str | None = None
    sinks: SinkSettings = SinkSettings()
    alerts: AlertSettings | None = None
    exchange: ExchangeSettings | None = None
    flex: FlexSettings | None = None
    nvsentinel: NvsentinelSettings | None = None
    federated: FederatedServers = ()


@dataclass
class Site:
    """A running site, as CLI, web, tests and evals receive it."""

    settings: SiteSettings
    clock: Clock
    guard: Guard
    approvals: Approvals
    ledger: Ledger
    ledger_key: str
    faces: dict[str, Face] = field(default_factory=dict)
    components: list[str] = field(default_factory=list)
    health: list[Callable[[], "Connection"]] = field(default_factory=list)
    requesting: Requesting | None = None
    sentinel: "NvsentinelPart | None" = None
    sending: Sending | None = None

    def offers(self, component: str, only: str | None) -> bool:
        """Note a configured component; whether it is offered."""
        self.components.append(component)
        return only is None or only == component


class Connection(NamedTuple):
    """What one component's connection is like now."""

    component: str
    works: bool
    says: str


def connections(site: Site) -> list[Connection]:
    """How each configured component answers at this moment."""
    return [ask() for ask in site.health]


@dataclass
class Authority:
    """The half of a site that needs no component: store, ledger, and what people decide."""

    store: Store
    ledger: Ledger
    ledger_key: str
    vote_key: str
    approvals: Approvals
    delegations: Delegations
    break_glass: BreakGlass
    autonomy: Autonomy
    clearing: Clearing
    lists: ListApprovals


@asynccontextmanager
async def open_authority(settings: SiteSettings, clock: Clock) -> AsyncIterator[Authority]:
    """Open store, ledger and votes; what a console needs to vote, stop and verify.

    Raises:
        InvalidRequestError: a key file is not usable.
        ConflictError: the store holds the log of another site, or is of a newer version.
    """
    data_dir = settings.data_dir
    data_dir.mkdir(parents=True, exist_ok=True)
    votes = _key("votes", data_dir / "vote-key.pem")
    engine = create_store_engine(
        store_address(data_dir, settings.store_url, settings.store_url_env)
    )
    try:
        migrate(engine)
        opening = open_ledger(
            engine,
            settings.sinks,
            site_id=settings.rules.site_id,
            data_dir=data_dir,
            clock=clock,
        )
        async with opening as ledger:
            store = Store(engine)
            yield Authority(
                store=store,
                ledger=ledger,
                ledger_key=ledger.vkeys[-1],
                vote_key=votes.vkey,
                approvals=Approvals(store, ledger, clock, votes),
                delegations=Delegations(store, ledger, clock, votes, settings.rules),
                break_glass=BreakGlass(store, ledger, clock, votes, settings.rules),
                autonomy=Autonomy(store, ledger, clock, votes, settings.rules),
                clearing=Clearing(store, ledger, clock),
                lists=ListApprovals(store, ledger, clock, votes, settings.rules),
            )
    finally:
        engine.dispose()


@asynccontextmanager
async def open_site(
    settings: SiteSettings, clock: Clock, who: WhoCalls, *, only: str | None = None
) -> AsyncIterator[Site]:
    """Connect the configured components, start the worker, and give the site.

    `only` names the one component that is offered, where the others are needed for facts alone.

    Raises:
        BundleError: the policy cannot be served.
        UnavailableError: a component that must answer at connect does not.
    """
    async with AsyncExitStack() as stack:
        authority = await stack.enter_async_context(open_authority(settings, clock))
        facts = FactRegistry()
        exchange = flex = groups = asks = sends = sentinel = None
        if settings.exchange is not None:
            exchange = await stack.enter_async_context(ExchangeClient(settings.exchange, clock))
            facts.add(ExchangeFacts(exchange))
            if (requests := settings.exchange.requests) is not None:
                asks = requesting(exchange, requests, authority.store, clock)
                facts.add(asks.facts)
        if settings.flex is not None:
            flex = await stack.enter_async_context(
                FlexClient(settings.flex, clock, folder=settings.data_dir)
            )
            facts.add(FlexFacts(flex, clock))
            if (ours := settings.flex.publish) is not None:
                sends = sending(flex, ours, authority.store, facts, clock)
                facts.add(sends.facts)
        gpus = await stack.enter_async_context(
            powering(
                settings.maxlps,
                settings.devices,
                authority.store,
                clock,
                settings.rules.site_id,
            )
        )
        if gpus.facts is not None:
            facts.add(gpus.facts)
        if gpus.dps is not None:
            groups = GroupClient(gpus.dps)
            facts.add(GroupFacts(groups, settings.rules.site_id))
        if settings.nvsentinel is not None:  # only then loaded, with a client of Kubernetes
            from interlock_servers.nvsentinel.attached import attached

            sentinel = await stack.enter_async_context(attached(settings.nvsentinel, clock))
            facts.add(sentinel.facts)
        federation = Federation(
            settings.federated,
            store=authority.store,
            rules=settings.rules,
            vote_keys=[authority.vote_key],
            clock=clock,
        )
        facts.add(federation.facts)
        power = gpus.power
        own = () if power is None else maxlps_operations(power, facts, settings.rules.site_id)
        grouped = () if groups is None else group_operations(groups, facts, settings.rules.site_id)
        asked = () if asks is None else asks.operations
        sent = () if sends is None else sends.operations
        cared = () if sentinel is None else sentinel.operations
        operations = (*own, *grouped, *asked, *sent, *cared, *federation.operations)
        alerts = _alerts(settings, authority, clock, gpus)
        guard = Guard(
            store=authority.store,
            ledger=authority.ledger,
            gate=load_bundle(settings.bundle, effects(operations)),
            facts=facts,
            clock=clock,
            rules=settings.rules,
            operations=operations,
            vote_keys=[authority.vote_key],
            pager=alerts,
        )
        offer_plans(guard)
        await guard.record_start(settings.bundle)
        site = Site(
            settings, clock, guard, authority.approvals, authority.ledger, authority.ledger_key
        )
        site.requesting, site.sending = asks, sends
        if exchange is not None:
            if site.offers("exchange", only):
                site.faces["exchange"] = exchange_face(exchange, guard=guard, who=who)
            if site.offers("dsx_exchange", only):
                site.faces["dsx_exchange"] = upstream_face(exchange, guard=guard, who=who)
            if asks is not None and asks.operations and site.offers("bms", only):
                site.faces["bms"] = bms_face(asks.operations, asks.wires, guard=guard, who=who)
            isolates = asks is not None and asks.wires.settings.isolation
            if isolates and asked and site.offers("isolation", only):
                site.faces["isolation"] = isolation_face(asked, guard=guard, who=who)
            site.health.append(partial(_exchange_health, exchange, asks))
        if power is not None:
            if site.offers("maxlps", only):
                site.faces["maxlps"] = maxlps_face(
                    own,
                    facts=facts,
                    site_id=settings.rules.site_id,
                    guard=guard,
                    who=who,
                )
            if groups is not None and site.offers("dps", only):
                site.faces["dps"] = dps_face(
                    grouped,
                    groups,
                    facts=facts,
                    site_id=settings.rules.site_id,
                    guard=guard,
                    who=who,
                )
            if grouped and site.offers("dps_groups", only):
                site.faces["dps_groups"] = dps_groups_face(grouped, guard=guard, who=who)
            site.health.append(lambda: Connection("maxlps", *gpus.health()))
        if gpus.nodes is not None:
            if site.offers("devices", only):
                from interlock_servers.maxlps.gpu_face import devices_face

                site.faces["devices"] = devices_face(
                    gpus.nodes,
                    facts=facts,
                    site_id=settings.rules.site_id,
                    guard=guard,
                    who=who,
                )
            site.health.append(lambda: Connection("devices", *gpus.devices_health()))
        if flex is not None:
            if site.offers("flex", only):
                site.faces["flex"] = flex_face(flex, clock=clock, guard=guard, who=who)
            if sends is not None and site.offers(GRID_ISV, only):
                site.faces[GRID_ISV] = isv_face(sent, guard=guard, who=who)
            site.health.append(partial(_flex_health, flex))
        site.sentinel = sentinel
        if sentinel is not None:
            for face in sentinel.faces(guard, who):
                if site.offers(face.component, only):
                    site.faces[face.component] = face
            site.health.append(partial(_sentinel_health, sentinel))
        for face in federation.faces(guard, who):
            if site.offers(face.component, only):
                site.faces[face.component] = face
        site.health += [partial(_federated_health, one) for one in federation.upstreams]
        stack.enter_context(readable(authority.store.engine, authority.ledger, exchange, flex))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for upstream in federation.upstreams:
            tasks.start_soon(upstream.run)
        tasks.start_soon(gpus.watch)
        alongside = [
            *gpus.alongside,
            *(() if asks is None or not asked else (asks.wires.holder.run,)),
            *(() if sends is None else (sends.publisher.run,)),
            *_recording(settings, facts, clock),
        ]
        tasks.start_soon(Worker(guard, alongside=alongside).run)
        if alerts is not None:
            tasks.start_soon(alerts.run)
        try:
            yield site
        finally:
            tasks.cancel_scope.cancel()


def _recording(
    settings: SiteSettings, facts: FactRegistry, clock: Clock
) -> Iterator[Callable[[], Coroutine[Any, Any, None]]]:
    """What keeps the site's meter for settlements, where that is wanted."""
    if settings.flex is not None and (kept := settings.flex.settlement) is not None:
        site_id, path = settings.rules.site_id, settings.data_dir / SITE_METER
        yield MeterRecord(facts, site_id, clock, path, kept.interval_s).run


def _alerts(
    settings: SiteSettings, authority: Authority, clock: Clock, gpus: Powering
) -> Alerts | None:
    if settings.alerts is None:
        return None
    return Alerts(
        settings.alerts,
        site_id=settings.rules.site_id,
        store=authority.store,
        break_glass=authority.break_glass,
        clock=clock,
        nodes=gpus.notes,
    )


def _key(name: str, path: Path) -> Signer:
    """The key in this file, made on first use."""
    if not path.exists():
        Signer.generate(name).save(path)
    return Signer.load(name, path)


def _exchange_health(client: ExchangeClient, asks: Requesting | None) -> Connection:
    ingest, beats = client.ingest(), client.heartbeats()
    if not ingest.bus.connected:
        return Connection("exchange", False, ingest.bus.last_error or "the bus is not connected")
    if not ingest.points:
        return Connection("exchange", False, "connected, but no point was described yet")
    alive = "alive" if beats.bms_alive else f"not known to be alive: {beats.why}"
    may = "it is only listened to" if asks is None else asks.says()
    return Connection("exchange", True, f"{ingest.points} points; the BMS is {alive}; {may}")


def _flex_health(client: FlexClient) -> Connection:
    health = client.health()
    if health.why_not is not None:
        return Connection("flex", False, health.why_not)
    sources = ", ".join(_sources(client))
    said = f"verified targets only, from {sources}" if sources else "the utility's OpenADR alone"
    return Connection("flex", True, said)


def _sentinel_health(part: "NvsentinelPart") -> Connection:
    works, says = part.health()
    return Connection("nvsentinel", works, says)


def _federated_health(upstream: Upstream) -> Connection:
    name = upstream.settings.name
    if not upstream.connected:
        return Connection(name, False, upstream.why_not)
    says = f"connected; `interlock federation show {name}` says whether its tools are approved"
    return Connection(name, True, says)


def _sources(client: FlexClient) -> list[str]:
    return sorted(client.settings.trusted)
