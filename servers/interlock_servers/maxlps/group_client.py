"""Resource groups and policies of DPS: reads, and the calls that change them.

A write is sent once and never again, strict, and takes power from nobody unless that was asked for.
Whether it was done is not taken from a gRPC OK: the Status, the status of every node, and where DPS
may do a part and say ok, the group as it is afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.group_models import GroupState, Policy
from interlock_servers.maxlps.group_needs import (
    ACTIVATE,
    ADD,
    CREATE,
    DELETE,
    GROUP_STATES,
    LIST_DEVICES,
    LIST_POLICIES,
    OPERATION_STATUS,
    REMOVE,
    SET_PRIORITY,
    UPDATE,
    UPDATE_RESOURCES,
)
from interlock_servers.maxlps.group_wire import NAMED, check_nodes, policy_of, state_of
from interlock_servers.maxlps.wire import check_status, failed
from interlock_servers.transports.grpc_descriptors import MethodNeed
from interlock_servers.transports.grpc_record import Record
from interlock_servers.transports.grpc_reflection import quoted
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)

ASK_EVERY_S: Final = 1.0
ASK_FOR_S: Final = 40.0  # of the 60 s that an act may take
ALREADY: Final = "already active"


class GroupClient:
    """The groups of one DPS, over the connection of its `DpsClient`.

    Every call raises ComponentError UNSUPPORTED, and sends nothing, where this DPS lacks a method
    or field that it needs. A write without an answer raises UnavailableError: read back.
    """

    def __init__(self, dps: DpsClient) -> None:
        self.dps = dps

    # ── reads ─────────────────────────────────────────────────────────────────────────────────

    async def groups(self) -> tuple[GroupState, ...]:
        """Every group with the policy asked for and applied of each node, by name."""
        answer = await self._read(GROUP_STATES, {})
        found = [state_of(group) for group in answer.records("resource_groups")]
        return tuple(sorted(found, key=lambda group: group.name))

    async def group(self, name: str) -> GroupState:
        """One group.

        Raises:
            NotFoundError: DPS has none of this name.
        """
        found = [group for group in await self.groups() if group.name == name]
        if not found:
            raise NotFoundError(f"DPS has no resource group {name!r}")
        return found[0]

    async def policies(self) -> tuple[Policy, ...]:
        """Every policy that DPS can apply, by name."""
        self.dps.channel.require(LIST_POLICIES)
        parts = await self.dps.channel.stream(
            LIST_POLICIES.path, {}, deadline_s=self.dps.deadline_s
        )
        return tuple(sorted(map(policy_of, parts), key=lambda policy: policy.name))

    async def devices(self) -> tuple[tuple[str, str], ...]:
        """Type and model of every device that DPS has figures of."""
        self.dps.channel.require(LIST_DEVICES)
        parts = await self.dps.channel.stream(LIST_DEVICES.path, {}, deadline_s=self.dps.deadline_s)
        return tuple(sorted((part.text("type"), part.text("model")) for part in parts))

    def why_no_priority(self) -> str | None:
        """The field that this DPS lacks to take priorities; None where it takes them."""
        try:
            self.dps.channel.require(SET_PRIORITY)
        except ComponentError as error:
            return str(error)
        return None

    # ── writes without an effect on hardware ──────────────────────────────────────────────────

    async def create(self, name: str, policy: str, *, dpm: bool, prs: bool) -> None:
        """Make a group without nodes. PRS with shared GPUs is never asked for."""
        fields = {"group_name": name, "policy_name": policy, "dpm_enable": dpm, "prs_enabled": prs}
        check_status(await self._write(CREATE, fields), CREATE)

    async def set_priority(self, name: str, priority: int) -> None:
        """Give a group another priority: the lower number loses power last."""
        fields = {"group_name": name, "priority": priority}
        check_status(await self._write(SET_PRIORITY, fields), SET_PRIORITY)

    # ── writes that reach the hardware of a group that is active ──────────────────────────────

    async def add(
        self, name: str, node_ids: Sequence[str], policy: str | None, *, reprovision: bool = False
    ) -> None:
        """Put nodes into a group, with a policy of their own or the group's."""
        fields: dict[str, Any] = {
            "group_name": name,
            "resource_names": _some(node_ids),
            "strict": True,
            "allow_reprovision": reprovision,
        }
        if policy is not None:
            fields["policy_name"] = policy
        check_status(await self._write(ADD, fields), ADD)

    async def remove(self, name: str, node_ids: Sequence[str]) -> None:
        """Take nodes out of a group; the topology's policy holds on them again."""
        fields = {"group_name": name, "resource_names": _some(node_ids)}
        check_status(await self._write(REMOVE, fields), REMOVE)

    async def activate(
        self, name: str, policies: Mapping[str, str], *, reprovision: bool = False
    ) -> dict[str, Any]:
        """Put a group's policies on its hardware; one that is active already is no failure.

        Args:
            name: the group.
            policies: of each of its nodes, what must be applied in the end.
            reprovision: whether power may be taken from other groups.

        Returns:
            What is worth keeping of the answer.
        """
        fields = {
            "group_name": name,
            "strict": True,
            "async": {"wait": self._wait},
            "allow_reprovision": reprovision,
        }
        try:
            answer = await self._write(ACTIVATE, fields)
        except ConflictError as error:
            if ALREADY not in str(error).casefold():
                raise
            return {"already_active": True}
        return await self._done(answer, policies, ACTIVATE, "activate")

    async def set_policy(self, name: str, policy: str, node_ids: Sequence[str]) -> dict[str, Any]:
        """Give a group another policy; `node_ids` are those of it that must have it in the end."""
        fields = {
            "group_name": name,
            "policy_name": policy,
            "strict": True,
            "async": {"wait": self._wait},
        }
        answer = await self._write(UPDATE, fields)
        return await self._done(answer, dict.fromkeys(node_ids, policy), UPDATE, "update")

    async def set_node_policies(self, name: str, policies: Mapping[str, str]) -> None:
        """Give nodes of a group policies of their own.

        DPS may do a part of it and say ok, so the group is read afterwards.

        Raises:
            ComponentError: PARTIAL, with the nodes that have another policy.
        """
        updates = [{"resource_name": n, "policy_name": p} for n, p in sorted(policies.items())]
        fields = {"group_name": name, "updates": _some(updates)}
        check_status(await self._write(UPDATE_RESOURCES, fields), UPDATE_RESOURCES)
        now = await self.group(name)
        _check_applied(now, policies, UPDATE_RESOURCES)

    async def delete(self, name: str) -> dict[str, Any]:
        """Remove a group for good; its nodes have the topology's policy again, which may be more.

        One that is gone already is no failure.
        """
        try:
            check_status(await self._write(DELETE, {"group_name": name}), DELETE)
        except NotFoundError:
            return {"already_gone": True}
        return {}

    # ── shared ────────────────────────────────────────────────────────────────────────────────

    @property
    def _wait(self) -> str:
        """How long DPS may let us wait before it answers with an operation, as JSON wants it."""
        return f"{self.dps.deadline_s / 2:g}s"

    async def _read(self, need: MethodNeed, fields: Mapping[str, object]) -> Record:
        self.dps.channel.require(need)
        answer = await self.dps.channel.unary(need.path, fields, deadline_s=self.dps.deadline_s)
        check_status(answer, need)
        return answer

    async def _write(self, need: MethodNeed, fields: Mapping[str, object]) -> Record:
        """Send it once; what was read before is not what holds afterwards."""
        self.dps.channel.require(need)
        self.dps.writes += 1
        try:
            return await self.dps.channel.unary(need.path, fields, deadline_s=self.dps.deadline_s)
        finally:
            self.dps.writes += 1

    async def _done(
        self, answer: Record, policies: Mapping[str, str], need: MethodNeed, kind: str
    ) -> dict[str, Any]:
        """The nodes' own statuses, of this answer or of the operation that it names."""
        operation = answer.text("operation_id") if answer.has_field("operation_id") else ""
        if operation:
            check_status(answer, need)
            answer = await self._ended(operation, kind)
        if policies and answer.has_field("node_statuses"):
            check_nodes(answer, policies, policies, need)
        else:
            check_status(answer, need)
        return {"operation": operation, "nodes_asked": len(policies)}

    async def _ended(self, operation: str, kind: str) -> Record:
        """What became of an operation: asked for once a step, since asking can consume it.

        Raises:
            UnavailableError: it is not done in time, or forgotten: what happened must be read.
        """
        since = self.dps.clock.now()
        self.dps.channel.require(OPERATION_STATUS)
        while True:
            try:
                answer = await self.dps.channel.unary(
                    OPERATION_STATUS.path,
                    {"operation_id": operation},
                    deadline_s=self.dps.deadline_s,
                )
            except NotFoundError as error:
                raise UnavailableError(
                    f"DPS has forgotten the operation {quoted(operation)}; what it did is unknown: "
                    "read it back"
                ) from error
            if answer.flag("completed"):
                self.dps.writes += 1  # what was read while it ran is not what holds
                result = answer.record(kind) if answer.has_field(kind) else None
                if result is None:
                    text = f"the operation {quoted(operation)} is done and tells no result"
                    raise failed("NO_RESULT", f"{text}: read back")
                return result
            if (self.dps.clock.now() - since).total_seconds() > ASK_FOR_S:
                raise UnavailableError(
                    f"the operation {quoted(operation)} is not done after {ASK_FOR_S:g} s; what it "
                    "did so far is unknown: read it back"
                )
            await self.dps.clock.sleep(ASK_EVERY_S)


def _check_applied(now: GroupState, policies: Mapping[str, str], need: MethodNeed) -> None:
    """Every node has what was asked for: taken down, and applied where the group is active."""
    wrong = [
        node_id
        for node_id, policy in sorted(policies.items())
        if not has_policy(now, node_id, policy)
    ]
    if wrong:
        done = len(policies) - len(wrong)
        raise ComponentError(
            "maxlps",
            "PARTIAL",
            f"{need.name} did {done} of {len(policies)} nodes; not {', '.join(wrong[:NAMED])}",
        )


def has_policy(group: GroupState, node_id: str, policy: str) -> bool:
    """Whether a node of it was given this policy, and follows it where the group is active."""
    asked, applied = group.policies.get(node_id, ("", ""))
    return asked == policy and (group.status != "active" or applied == policy)


def _some(items: Sequence[Any]) -> list[Any]:
    """The items; what DPS takes an empty list for is not public, and could be everything."""
    if not items:
        raise InvalidRequestError("no node is named; an empty request is never sent")
    return list(items)
