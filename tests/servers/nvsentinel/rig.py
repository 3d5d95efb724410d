"""A site over the cluster, met through MCP as an agent does; its clock runs, and can be put on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from mcp import Client

from interlock_agents.connection import Servers
from interlock_guardrails.rules import SiteRules
from interlock_servers.identity import SCOPE_PROPOSE, SCOPE_READ
from interlock_servers.nvsentinel.attached import NvsentinelPart
from interlock_servers.site import Site, SiteSettings, open_site
from interlock_tools.change import Change
from interlock_tools.identity import Principal, PrincipalKind
from tests.servers.nvsentinel.world import World

RATE = 20.0
PATIENCE_S = 30.0  # of the machine's time
AGENT = Principal(
    id="agent:remediation",
    kind=PrincipalKind.AGENT,
    authenticated_by="token:local",
    scopes=frozenset({SCOPE_READ, SCOPE_PROPOSE}),
    owner="person:owner",
)


class QuickClock:
    """Begins now and runs twenty times as fast as the machine's; a test may put it on."""

    def __init__(self) -> None:
        self._began = time.time()
        self.ahead = timedelta()

    def now(self) -> datetime:
        """The moment it shows."""
        quick_s = (time.time() - self._began) * RATE
        began = datetime.fromtimestamp(self._began, UTC)
        return began + timedelta(seconds=quick_s) + self.ahead

    async def sleep(self, seconds: float) -> None:
        """Sleep so many of its seconds."""
        await asyncio.sleep(max(0.0, seconds) / RATE)


@dataclass
class Rig:
    """The site, and one agent's clients of it."""

    world: World
    site: Site
    clock: QuickClock
    part: NvsentinelPart
    clients: dict[str, Client] = field(default_factory=dict)

    async def call(self, component: str, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured answer of a tool; ComponentError carries the text of an error."""
        return await Servers(self.clients).call(component, tool, **arguments)

    async def propose(self, tool: str, *, dry_run: bool = False, **arguments: Any) -> Change:
        """Propose, straight to the guard; the change as it stands."""
        return await self.site.guard.propose(
            AGENT, f"nvsentinel.{tool}", arguments, reason="a test of nodes", dry_run=dry_run
        )

    async def approve(self, change: Change) -> None:
        """As many people of the asked-for role as it takes say yes."""
        assert change.decision is not None
        quorum = change.decision.quorum
        assert quorum is not None, change.sentence()
        for number in range(quorum.people):
            voter = Principal(
                id=f"person:voter-{number + 1}",
                kind=PrincipalKind.PERSON,
                authenticated_by="console:local",
                roles=frozenset({quorum.role}),
            )
            await self.site.approvals.vote(
                voter,
                change.change_id,
                approve=True,
                shown_digest=change.binding_digest or "",
                typed_target=change.target.id if quorum.typed_target else None,
            )

    async def begun(self, tool: str, **arguments: Any) -> Change:
        """Propose and approve; the change once it has acted, or ended without."""
        change = await self.propose(tool, **arguments)
        await self.approve(change)
        return await self.until(change, lambda row: row.ended or bool(row.evidence))

    async def ended(self, change: Change) -> Change:
        """The change at its end."""
        return await self.until(change, lambda row: row.ended)

    async def still_verifying(self, change: Change) -> bool:
        """Whether it has not ended after the worker has looked a few times more."""
        later = self.clock.now() + timedelta(seconds=10)
        row = await self.until(change, lambda row: row.ended or self.clock.now() >= later)
        return not row.ended

    async def until(self, change: Change, holds: Any) -> Change:
        """The change, once something holds of it; bounded in the machine's time."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                row = await self.site.guard.get(change.change_id)
                if holds(row):
                    return row
                await anyio.sleep(0.02)


@asynccontextmanager
async def rig_on(
    world: World, folder: Path, *, persona: str = "admin", **more: Any
) -> AsyncIterator[Rig]:
    """A supervised site that has listed the whole cluster; `more` are settings of ours."""
    clock = QuickClock()
    nvsentinel = world.settings(persona, operations=True, **more)
    quiet = nvsentinel.cluster.model_copy(update={"quiet_s": 600.0})
    settings = SiteSettings(
        rules=SiteRules(site_id="lab", gpus=512, hosts=64),
        bundle="supervised",
        data_dir=folder / "site",
        nvsentinel=nvsentinel.model_copy(update={"cluster": quiet}),
    )
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(open_site(settings, clock, lambda: AGENT))
        part = site.sentinel
        assert part is not None
        with anyio.fail_after(PATIENCE_S):
            await part.client.listed()
        rig = Rig(world, site, clock, part)
        for name, face in site.faces.items():
            rig.clients[name] = await stack.enter_async_context(Client(face.server()))
        yield rig
