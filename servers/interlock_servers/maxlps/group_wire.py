"""DPS's messages about groups and policies as our models, each checked."""

from collections.abc import Collection, Mapping

from interlock_servers.maxlps.group_models import GroupState, Limit, Policy, nvml_profile
from interlock_servers.maxlps.wire import check_status, failed
from interlock_servers.transports.grpc_descriptors import MethodNeed
from interlock_servers.transports.grpc_record import Record
from interlock_servers.transports.grpc_reflection import quoted

ACTIVE = "active"
NAMED = 5


def state_of(record: Record) -> GroupState:
    """One resource group.

    Raises:
        ComponentError: a node is told of twice with different policies, or a profile has a number
            that none can have.
    """
    name = record.text("group_name")
    policies: dict[str, tuple[str, str]] = {}
    for one in record.records("resource_policies"):
        node_id = one.text("resource_name")
        pair = (one.text("policy_name"), one.text("applied_policy_name"))
        if policies.setdefault(node_id, pair) != pair:
            raise failed("BAD_GROUP", f"{quoted(name)} tells of {quoted(node_id)} twice")
    profiles = [nvml_profile(number) for number in record.wholes("workload_profile_ids")]
    known = tuple(number for number in profiles if number is not None)
    if len(known) != len(profiles):
        raise failed("BAD_GROUP", f"{quoted(name)} has a workload profile below 3 or above 258")
    return GroupState(
        name=name,
        status=record.text("activation_status").casefold(),
        policy=record.text("policy_name") or None,
        priority=record.whole("priority") if record.has_field("priority") else None,
        dpm=record.flag("dpm_enable"),
        prs=record.flag("prs_enabled"),
        node_ids=tuple(sorted(record.texts("resource_names"))),
        policies=policies,
        nvml_profiles=known,
    )


def policy_of(record: Record) -> Policy:
    """One policy with the watts that it tells, and nothing where it tells none."""
    limits = []
    for one in record.records("limits"):
        limit = one.record("power_limit")
        limits.append(
            Limit(
                element=one.word("element_type"),
                watts=None if limit is None else limit.number("watts"),
                percentage=None if limit is None else limit.number("percentage"),
            )
        )
    types = record.texts("bundle_types") if record.has_field("bundle_types") else ()
    return Policy(record.text("name"), tuple(limits), types)


def check_nodes(
    answer: Record, asked: Collection[str], policies: Mapping[str, str], need: MethodNeed
) -> None:
    """Every node has its own status and it is ok, with the policy that was asked for.

    Raises:
        ComponentError: NODE_NOT_OK, MISSING_RESULT or DOWNGRADED, with how many were reached.
    """
    said = answer.records_by_key("node_statuses")
    not_ok: list[str] = []
    lesser: list[str] = []
    for node_id in sorted(said):
        applied = said[node_id].record("policy_apply_status")
        status = None if applied is None else applied.record("status")
        if status is None or not status.flag("ok"):
            why = "no status" if status is None else quoted(status.text("diag_msg"))
            not_ok.append(f"{quoted(node_id)}: {why}")
            continue
        policy = applied.record("policy") if applied is not None else None
        wanted = policies.get(node_id)
        if policy is not None and wanted and policy.text("name") not in {"", wanted}:
            lesser.append(f"{quoted(node_id)} got {quoted(policy.text('name'))} for {wanted}")
    if not_ok:
        reached = len(said) - len(not_ok)
        text = f"{need.name}: {'; '.join(not_ok[:NAMED])}; {reached} of {len(asked)} nodes were "
        raise failed("NODE_NOT_OK", text + "reached: read back")
    check_status(answer, need)
    missing = sorted(set(asked) - set(said))
    if missing:
        text = f"{need.name}: no status of {', '.join(missing[:NAMED])}; whether the policy is "
        raise failed("MISSING_RESULT", text + "there is unknown: read back")
    if lesser:
        raise failed("DOWNGRADED", f"{need.name}: {'; '.join(lesser[:NAMED])}; it stands: look")
