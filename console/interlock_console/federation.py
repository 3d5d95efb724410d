"""Other MCP servers: what their tool lists say, what changed, and a person's yes or no to it."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import anyio
import typer

from interlock_console.decisions import SHOWN_DIGITS
from interlock_console.entry import DEFAULT_FILE, Config, Why, console, run, settings_in
from interlock_console.settings import InterlockSettings, local_person, roles_of_user
from interlock_guardrails.federation import ListApproval
from interlock_servers.federation.client import Upstream
from interlock_servers.federation.gate import offered
from interlock_servers.federation.models import ToolList, differences, local_name
from interlock_servers.federation.settings import FederatedSettings
from interlock_servers.site import Authority, open_authority
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ConflictError, InvalidRequestError, UnavailableError
from interlock_tools.identity import Principal

federation = typer.Typer(
    help="Tool lists of other MCP servers: read, approve, revoke.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="the name of the server in the settings")]
Work = Callable[[Authority, Principal, FederatedSettings], Awaitable[None]]


def add_to(app: typer.Typer) -> None:
    """Give the command line these verbs."""
    app.add_typer(federation, name="federation")


@federation.command()
def show(
    name: Name,
    full: Annotated[bool, typer.Option("--full", help="with the schemas of all tools")] = False,
    config: Config = DEFAULT_FILE,
) -> None:
    """What the server lists now, and what changed since a person approved it."""

    async def look(authority: Authority, _: Principal, settings: FederatedSettings) -> None:
        present = await _present(settings)
        approval = await authority.lists.standing(name)
        listed = None if approval is None else await authority.lists.listed(approval)
        _say_list(settings, present, full=full)
        before = None if listed is None else ToolList.from_document(listed)
        _say_changes(name, present, approval, before)

    _run(config, name, look)


@federation.command()
def approve(
    name: Name,
    digest: Annotated[
        str, typer.Option(help="the first characters of the digest that you were shown")
    ],
    why: Why,
    config: Config = DEFAULT_FILE,
) -> None:
    """Let exactly this list be offered; the server is asked once more whether it still has it."""

    async def say_yes(authority: Authority, me: Principal, settings: FederatedSettings) -> None:
        present = await _present(settings)
        if len(digest) < SHOWN_DIGITS or not present.digest().startswith(digest):
            raise ConflictError(
                f"{digest!r} is not the list that {name} has now; read it again with "
                f"`interlock federation show {name}`"
            )
        given = await authority.lists.approve(me, name, present.document(), why=why)
        _say(f"{given.approval_id}: {name} may offer list {given.digest[:SHOWN_DIGITS]} here")

    _run(config, name, say_yes)


@federation.command()
def revoke(name: Name, why: Why, config: Config = DEFAULT_FILE) -> None:
    """Offer nothing of this server any more, from its next call on. Anyone may."""

    async def end(authority: Authority, me: Principal, _: FederatedSettings) -> None:
        ended = await authority.lists.revoke(me, name, why=why)
        _say(f"{ended.approval_id} is revoked: {name} offers nothing here")

    _run(config, name, end)


async def _present(settings: FederatedSettings) -> ToolList:
    """The list that the server has now, over a connection of our own."""
    upstream = Upstream(settings, SystemClock())
    within_s = 2 * settings.connect_timeout_s
    try:
        with anyio.fail_after(within_s):
            async with upstream.opened(upstream.token()) as line:
                return await line.listed()
    except TimeoutError:
        raise UnavailableError(f"{settings.name} gave no answer in {within_s:g} s") from None


def _say_list(settings: FederatedSettings, present: ToolList, *, full: bool) -> None:
    server = present.server
    _say(f"{settings.name}: {server.get('name', 'unnamed')} {server.get('version', '')}")
    taken, withheld = offered(settings, present)
    for name in sorted(present.tools):
        tool = present.tools[name]
        if name in taken:
            _say(f"  {name} [{settings.tools[name].effect}] as {local_name(name, settings.name)}")
        else:
            _say(f"  {name} [not offered: {withheld[name]}]")
        _say(f"    {json.dumps(tool.get('description', ''), ensure_ascii=False)}")
        if full:
            _say(f"    {json.dumps(tool, ensure_ascii=False, sort_keys=True)}")
    for name in sorted(withheld.keys() - present.tools.keys()):
        _say(f"  {name} [in the settings: {withheld[name]}]")


def _say_changes(
    name: str, present: ToolList, approval: ListApproval | None, before: ToolList | None
) -> None:
    digest = present.digest()
    if approval is None:
        _say("nobody has approved a list of it; none of its tools is offered")
    elif digest == approval.digest:
        _say(f"approved by {approval.approved_by} at {approval.approved_at}: {approval.why}")
        return
    else:
        _say(f"CHANGED since {approval.approved_by} approved it at {approval.approved_at}:")
        for difference in () if before is None else differences(before, present):
            _say(f"  {difference.sentence}")
            for line in difference.lines:
                _say(f"    {line}")
        if before is None:
            _say("  the list that was approved cannot be read any more")
    _say(f"digest {digest}")
    _say(f"a site lead: interlock federation approve {name} --digest {digest[:SHOWN_DIGITS]}")


def _say(sentence: str) -> None:
    """One line, whatever stands in it: the words are another server's."""
    line = "".join(each if each.isprintable() else "\ufffd" for each in sentence)
    console.print(line, markup=False, soft_wrap=True)


def _run(config: Path, name: str, work: Work) -> None:
    """Do it as the user of this machine; an expected failure is one sentence and exit status 2."""

    async def act() -> int:
        settings = settings_in(config)
        server = _server(settings, name)
        async with open_authority(settings.for_site(), SystemClock()) as authority:
            await work(authority, local_person(roles_of_user(settings)), server)
        return 0

    run(act())


def _server(settings: InterlockSettings, name: str) -> FederatedSettings:
    for server in settings.federated:
        if server.name == name:
            return server
    known = ", ".join(server.name for server in settings.federated) or "none"
    raise InvalidRequestError(f"no [[federated]] server is called {name!r}; there is: {known}")
