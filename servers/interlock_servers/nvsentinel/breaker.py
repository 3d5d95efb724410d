"""The reset of fault-quarantine's circuit breaker: two steps, either of which may be missing.

Source: upstream's runbook: the ConfigMap is set to CLOSED and the Deployment restarted, which reads
it only then. While it is tripped healthy events are not read either, so nodes that recovered stay
out; once it is closed everything that had piled up is acted on, unless the backlog is skipped.
"""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from interlock_servers.nvsentinel import facts as known
from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.acting import AGE_S, Keyed, pointer, reach_of, set_in, settled
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.models import Module
from interlock_servers.nvsentinel.reading import module
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import CONFIG_MAPS, DEPLOYMENTS
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import (
    Arguments,
    DryRun,
    Effect,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

STAYS_S = 60.0  # what piled up is read at once after the restart, and may trip it again


class BreakerArguments(Arguments):
    """What becomes of the events that came while it was tripped."""

    skip_backlog: Annotated[
        bool, Field(description="recoveries in it are lost too: those nodes stay out")
    ]


class ResetBreaker(Keyed, Operation[BreakerArguments]):
    """Close NVSentinel's tripped circuit breaker and restart fault-quarantine.

    Whatever tripped it may go on: half of the site may be quarantined. Find out why it tripped
    first.
    """

    name = "nvsentinel.reset_breaker"
    effect = Effect.DISRUPTIVE
    arguments = BreakerArguments
    deadline_s = 900.0
    act_timeout_s = 45.0

    def __init__(self, client: NvsentinelClient) -> None:
        self._client = client
        self._cluster = Target(kind="cluster", id=client.settings.cluster.name)

    def target(self, arguments: BreakerArguments) -> Target:
        """The cluster."""
        return self._cluster

    def facts(self, arguments: BreakerArguments) -> tuple[FactNeed, ...]:
        """What is installed, and every node that would be looked at."""
        return tuple(
            FactNeed(kind=kind, subject=self._cluster, max_age_s=4 * AGE_S)
            for kind in (known.SENTINEL, known.SENTINEL_REACH)
        )

    def blast_radius(self, arguments: BreakerArguments, facts: FactSet) -> BlastRadius:
        """Every node with a fault or a quarantine, and who works there."""
        state = facts.value(known.SENTINEL, self._cluster)["breaker"]
        if state != "tripped":
            told = {
                "stale_tripped": "it is switched off, and its TRIPPED is of an earlier time",
                "closed": "it is closed",
                "off": "it is switched off",
            }.get(state, "its state is not known")
            raise InvalidRequestError(f"there is nothing to reset: {told}")
        return reach_of(facts.value(known.SENTINEL_REACH, self._cluster))

    async def dry_run(self, arguments: BreakerArguments) -> DryRun | None:
        """The API server's own rehearsal of both steps."""
        await self._close(arguments, "rehearsal", dry_run=True)
        await self._restart("rehearsal", dry_run=True)
        return DryRun(would_succeed=True, notes=("the API server would take both steps",))

    async def execute(self, arguments: BreakerArguments, key: str) -> dict[str, Any]:
        """Close it, then restart whoever reads it.

        Raises:
            FactoryError: one of the two did not go well; the first alone does nothing yet.
        """
        await self._close(arguments, key, dry_run=False)
        await self._restart(key, dry_run=False)
        return {"closed": True, "restarted": names.QUARANTINER}

    async def read_back(self, arguments: BreakerArguments) -> ReadBack:
        """Each step by the note that it leaves; the first without the second is a part."""
        closed, restarted, evidence = await self._steps()
        happened = Happened.YES if closed and restarted else Happened.NO
        if closed != restarted:
            happened = Happened.PARTLY
        return ReadBack(happened=happened, evidence=evidence)

    async def verify(
        self, arguments: BreakerArguments, before: FactSet, since: datetime
    ) -> Verdict:
        """The restarted Deployment is rolled out, and the breaker has not tripped again."""
        runs = await self._module()  # first: closed must be so after it was rolled out
        closed, restarted, evidence = await self._steps()
        evidence["rolled_out"] = runs.rolled_out
        held = closed and restarted and runs.rolled_out and runs.ready == runs.wanted
        held = held and settled(since, self._client.clock.now(), STAYS_S)
        return Verdict(
            held=Held.YES if held else Held.NOT_YET,
            source="the rollout of fault-quarantine",
            evidence=evidence,
        )

    async def _steps(self) -> tuple[bool, bool, dict[str, Any]]:
        raw = await self._config()
        status = (raw.get("data") or {}).get("status")
        note = ((raw.get("metadata") or {}).get("annotations") or {}).get(names.CHANGE)
        restarted = (await self._module()).restarted_for == self._key
        closed = status == "CLOSED" and note == self._key
        return closed, restarted, {"status": status, "closed_by_us": closed, "restarted": restarted}

    async def _close(self, arguments: BreakerArguments, key: str, *, dry_run: bool) -> None:
        raw = await self._config()
        cursor = "CREATE" if arguments.skip_backlog else "RESUME"
        changes = [
            {"op": "add", "path": "/data/status", "value": "CLOSED"},
            {"op": "add", "path": "/data/cursor", "value": cursor},
            *set_in(raw, "annotations", names.CHANGE, key),
        ]
        await self._client.kube.patch(
            CONFIG_MAPS,
            names.BREAKER,
            changes,
            seen=raw,
            namespace=self._client.settings.namespace,
            dry_run=dry_run,
        )

    async def _restart(self, key: str, *, dry_run: bool) -> None:
        raw = await self._deployment()
        template = raw["spec"]["template"]
        changes = set_in(template, "annotations", names.CHANGE, key)
        for change in changes:
            change["path"] = pointer("spec", "template") + change["path"]
        await self._client.kube.patch(
            DEPLOYMENTS,
            names.QUARANTINER,
            changes,
            seen=raw,
            namespace=self._client.settings.namespace,
            dry_run=dry_run,
        )

    async def _config(self) -> Json:
        own = self._client.settings.namespace
        return await self._client.kube.get(CONFIG_MAPS, names.BREAKER, own)

    async def _deployment(self) -> Json:
        own = self._client.settings.namespace
        return await self._client.kube.get(DEPLOYMENTS, names.QUARANTINER, own)

    async def _module(self) -> Module:
        return module(await self._deployment())
