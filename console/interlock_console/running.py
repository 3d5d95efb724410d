"""Commands that keep running: serve a site, serve a component, run the simulated factory."""

import getpass
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel
from rich.console import Console

from interlock_console.settings import InterlockSettings, local_person, roles_of_user
from interlock_evals.factory import Addresses, running_factory, scenario_in
from interlock_guardrails.rules import SiteRules
from interlock_servers.checkpoint_sink import SinkSettings
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.serving import agent_principal, serve_http, serve_stdio
from interlock_servers.site import SiteSettings, connections, open_site
from interlock_servers.surface.toolsets import EVERYTHING, Narrow
from interlock_servers.transports.broker import Kind
from interlock_tools.clock import Clock, ScaledClock, SystemClock
from interlock_tools.errors import InvalidRequestError

SETTLE_LOOKS, LOOK_EVERY_S = 60, 0.25  # how long a component may take to be heard
ASKS_THE_BMS = (None, "bms", "isolation")  # of what is served, None being all
ON_A_CLUSTER = ("nvsentinel", "remediation", "janitor")


async def serve_until_interrupted(
    console: Console, settings: InterlockSettings, narrow: Narrow = EVERYTHING
) -> int:
    """Serve all configured components over HTTP, less what `narrow` takes away.

    Raises:
        FactoryError: a component, the policy or the port is not usable.
    """
    http = settings.http
    async with serve_http(
        settings.for_site(),
        SystemClock(),
        host=http.host,
        port=http.port,
        entrance=http,
        narrow=narrow,
        owners={f"agent:{name}": owner for name, owner in settings.agents.items()},
    ) as served:
        if not served.site.faces:
            raise InvalidRequestError("no component is configured; add a table such as [exchange]")
        for name, url in {"all": served.url, **served.urls()}.items():
            console.print(f"{name:<10} {url}", markup=False)
        console.print(f"bundle     {settings.bundle}")
        who = settings.agents or {"local": local_person(frozenset()).id}
        if http.authorization is not None:
            console.print(f"tokens by  {http.authorization.issuer}", markup=False)
            who = {}
        for name, owner in who.items():
            token = served.token(agent_principal(name, owner))
            console.print(
                f"token of agent:{name}, good for an hour; {owner} cannot approve for it:"
            )
            console.print(token, soft_wrap=True)
        await _interrupted()
    return 0


async def serve_component(
    component: str | None,
    settings: InterlockSettings | None,
    factory_file: Path | None,
    narrow: Narrow = EVERYTHING,
) -> int:
    """Serve over stdio: a configured site, a factory, or one of our own; all components, or one.

    Raises:
        FactoryError: it cannot be served.
    """
    roles = frozenset[str]() if settings is None else roles_of_user(settings)
    user = local_person(roles)
    if settings is not None:
        left = settings.http.narrow.and_also(narrow)
        await serve_stdio(settings.for_site(), SystemClock(), component, user, left)
        return 0
    own = _joined(factory_file, agents=component == "devices", kubernetes=component in ON_A_CLUSTER)
    async with own as (addresses, clock):
        with tempfile.TemporaryDirectory(prefix="interlock-serve-") as folder:
            site = twin_site(addresses, Path(folder), client_id=f"stdio-{component or 'all'}")
            if component not in ASKS_THE_BMS:
                site = _without_a_beat(site)
            await serve_stdio(site, clock, component, user, narrow)
    return 0


async def run_plant(
    console: Console,
    file: Path,
    settings_file: Path | None,
    *,
    site: str = "lab",
    scenario: Path | None = None,
    rate: float,
    broker: Kind | None,
    broker_url: str | None,
    agents: bool = False,
    kubernetes: bool = False,
) -> int:
    """Run the factory and write its addresses to `file`, until interrupted.

    `settings_file` receives settings that attach a site to it as to a real one.

    Raises:
        InvalidRequestError: there is no such site or scenario.
        UnavailableError: the broker did not start, or the one named does not answer.
    """
    told = None if scenario is None else scenario_in(scenario)
    clock = ScaledClock.starting_now(SystemClock().now(), rate)
    async with running_factory(
        clock,
        site=site,
        scenario=told,
        broker=broker,
        broker_url=broker_url,
        agents=agents,
        kubernetes=kubernetes,
    ) as factory:
        factory.addresses.save(file)
        try:
            console.print(f"factory {factory.addresses.site_id}: addresses in {file}")
            console.print(f"join it: interlock serve maxlps --stdio --factory {file}")
            if factory.addresses.kubernetes is not None:
                console.print(f"its cluster: kubectl --kubeconfig {factory.addresses.kubernetes}")
            if settings_file is not None:
                await anyio.Path(settings_file).write_text(settings_toml(factory.addresses))
                console.print(f"attach to it: interlock up --config {settings_file}")
            await _interrupted()
        finally:
            await anyio.Path(file).unlink(missing_ok=True)
    return 0


async def examine(console: Console, settings: InterlockSettings, *, all_here: bool = True) -> int:
    """Say what each configured component answers; 1 if one does not, or not `all_here`.

    Raises:
        FactoryError: the policy or the store is not usable, so nothing can be served.
    """
    user = local_person(roles_of_user(settings))
    with tempfile.TemporaryDirectory(prefix="interlock-doctor-") as folder:
        site_settings = _beside(settings.for_site(), Path(folder))
        async with open_site(site_settings, SystemClock(), lambda: user) as site:
            states = connections(site)
            for _ in range(SETTLE_LOOKS):
                if all(state.works for state in states):
                    break
                await anyio.sleep(LOOK_EVERY_S)
                states = connections(site)
    for state in states:
        mark = "[green]works[/]" if state.works else "[red]does not work[/]"
        console.print(f"{state.component:<10} {mark}  {state.says}", soft_wrap=True)
    if not states:
        console.print("no component is configured; `interlock demo` needs none")
    return 0 if all_here and all(state.works for state in states) else 1


def _beside(site: SiteSettings, data_dir: Path) -> SiteSettings:
    """The same site with a store, a place for checkpoints and names of its own.

    A broker closes the connection of whoever had a client id before: a look at a site must not
    push its server off the bus.
    """
    update: dict[str, object] = {"data_dir": data_dir, "sinks": SinkSettings()}
    update |= {"store_url": None, "store_url_env": None}
    for name, component in (("exchange", site.exchange), ("flex", site.flex)):
        if component is not None and component.mqtt is not None:
            client_id = f"{component.mqtt.client_id}-doctor-{os.getpid()}"
            mqtt = component.mqtt.model_copy(update={"client_id": client_id})
            update[name] = component.model_copy(update={"mqtt": mqtt})
    if isinstance(flex := update.get("flex"), FlexSettings):  # who only looks sends nothing
        update["flex"] = flex.model_copy(update={"publish": None})
    return _without_a_beat(site.model_copy(update=update))


def _without_a_beat(site: SiteSettings) -> SiteSettings:
    """The same site, which asks the BMS for nothing.

    A beat of ours would tell the BMS that somebody stands behind the requests of another process.
    """
    if site.exchange is None or site.exchange.requests is None:
        return site
    silent = site.exchange.requests.model_copy(update={"silent": True})
    exchange = site.exchange.model_copy(update={"requests": silent})
    return site.model_copy(update={"exchange": exchange})


def twin_site(addresses: Addresses, data_dir: Path, client_id: str) -> SiteSettings:
    """A site attached to a simulated factory; everything that changes needs people."""
    return SiteSettings(
        rules=SiteRules(site_id=addresses.site_id, gpus=addresses.gpus, hosts=addresses.hosts),
        bundle="supervised",
        data_dir=data_dir,
        exchange=addresses.exchange(client_id),
        maxlps=addresses.maxlps(),
        flex=addresses.flex(client_id),
        nvsentinel=addresses.nvsentinel(),
    )


def settings_toml(addresses: Addresses) -> str:
    """Settings that attach to a factory as to any real site: brokers, DPS and keys by address.

    They hold for a factory in real time (rate 1), whose clock is the machine's.
    """
    trusted = "\n".join(
        f'"{source}" = {json.dumps(list(kids))}' for source, kids in addresses.trusted.items()
    )
    nvsentinel = addresses.nvsentinel()
    return f"""\
bundle = "supervised"
data_dir = "interlock-data"

[site]
site_id = "{addresses.site_id}"
gpus = {addresses.gpus}
hosts = {addresses.hosts}

[people]
{getpass.getuser()} = ["operator"]

[agents]
power = "person:power-team"

[exchange]
site_id = "{addresses.site_id}"
mqtt = {{ brokers = ["{addresses.broker}"], client_id = "interlock-exchange" }}

{_table("maxlps", addresses.maxlps())}

[flex]
site_id = "{addresses.site_id}"
feeds = {json.dumps(list(addresses.feeds))}
jwks_file = "{addresses.jwks_file}"
mqtt = {{ brokers = ["{addresses.broker}"], client_id = "interlock-flex" }}

[flex.trusted]
{trusted}
{"" if nvsentinel is None else _table("nvsentinel", nvsentinel)}
"""


def _table(name: str, settings: BaseModel) -> str:
    """The table of a component, without what is so anyway."""
    told = settings.model_dump(mode="json", exclude_defaults=True)
    return "\n".join([f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in told.items())])


def _toml(value: Any) -> str:
    """A value in TOML, in one line; a text of JSON is one of TOML, a table is not."""
    if isinstance(value, dict):
        inside = (f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items())
        return "{ " + ", ".join(inside) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@asynccontextmanager
async def _joined(
    file: Path | None, *, agents: bool, kubernetes: bool
) -> AsyncIterator[tuple[Addresses, Clock]]:
    """The factory of this file, or one of our own for as long as the block lasts."""
    if file is not None:
        addresses = Addresses.load(file)
        yield addresses, addresses.clock()
        return
    clock = ScaledClock.starting_now(SystemClock().now(), 1.0)
    async with running_factory(clock, agents=agents, kubernetes=kubernetes) as factory:
        yield factory.addresses, clock


async def _interrupted() -> None:
    """Return on SIGINT or SIGTERM."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return
