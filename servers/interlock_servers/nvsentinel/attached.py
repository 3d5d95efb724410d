"""What a site needs of a cluster with NVSentinel: put together once, at the start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from interlock_guardrails.guard import Guard
from interlock_servers.identity import WhoCalls
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.facts import NvsentinelFacts
from interlock_servers.nvsentinel.installed import Mode, installed
from interlock_servers.nvsentinel.operations import nvsentinel_operations
from interlock_servers.nvsentinel.remediation import janitor_face, remediation_face
from interlock_servers.nvsentinel.rights import Examined, examine
from interlock_servers.nvsentinel.server import nvsentinel_face
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.offer import Face
from interlock_servers.transports.kube.cache import Known
from interlock_tools.clock import Clock
from interlock_tools.operation import Operation

LOOK_EVERY_S = 60.0
SOON_S = 1.0


@dataclass
class NvsentinelPart:
    """The component as a site has it."""

    client: NvsentinelClient
    facts: NvsentinelFacts
    operations: tuple[Operation[Any], ...]
    examined: Examined | None = None

    def faces(self, guard: Guard, who: WhoCalls) -> list[Face]:
        """What is offered: the look, and with operations the two that ask."""
        found = [nvsentinel_face(self.client, guard=guard, who=who)]
        if self.operations:
            found.append(remediation_face(self.operations, guard=guard, who=who))
            found.append(janitor_face(self.operations, guard=guard, who=who))
        return found

    async def keep_examining(self) -> None:
        """Know what is served and what we may; again every minute, and soon after no answer."""
        while True:
            self.examined = await examine(self.client)
            wait_s = SOON_S if self.examined.error else LOOK_EVERY_S
            await self.client.clock.sleep(wait_s)

    def health(self) -> tuple[bool, str]:
        """Whether it can be relied on, and all that is missing, in a sentence."""
        client, examined = self.client, self.examined
        if examined is None:
            return False, "nothing was asked of the API server yet"
        if examined.error:
            return False, examined.error
        now = installed(client)
        nodes = client.nodes.snapshot()
        says = [f"Kubernetes {examined.version}, {nodes.count} nodes; NVSentinel: {now.mode}"]
        if now.why:
            says.append(now.why)
        says.append(f"breaker {now.breaker.state}")
        if now.dry_run is not False:
            says.append("it runs dry" if now.dry_run else "whether it runs dry is not known")
        if examined.missing:
            says.append(f"not served: {', '.join(examined.missing)}")
        if examined.may_not:
            says.append(f"we may not: {'; '.join(examined.may_not)}")
        if not self.operations:
            says.append("it is only looked at")
        silent = {
            name: one.why
            for name, one in client.snapshots().items()
            if one.known in {Known.NEVER, Known.STALE}
        }
        if silent:
            says.append(f"not known now: {', '.join(silent)} ({next(iter(silent.values()))})")
        works = nodes.known is Known.FRESH and not examined.may_not and not silent
        works = works and now.mode not in {Mode.ABSENT, Mode.UNKNOWN}
        return works, "; ".join(says)


@asynccontextmanager
async def attached(settings: NvsentinelSettings, clock: Clock) -> AsyncIterator[NvsentinelPart]:
    """Follow the cluster for as long as the block lasts.

    Raises:
        InvalidRequestError: the credentials cannot be used.
    """
    async with NvsentinelClient(settings, clock) as client:
        part = NvsentinelPart(client, NvsentinelFacts(client), nvsentinel_operations(client))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(part.keep_examining)
            yield part
            tasks.cancel_scope.cancel()
