"""DPS's messages as our models, each with the checks that the contract asks for."""

import math
from collections.abc import Mapping, Sequence

from interlock_servers.maxlps import COMPONENT
from interlock_servers.maxlps.models import (
    AllocationCheck,
    CapResult,
    Entity,
    GpuLimit,
    NodePower,
    NodeStatus,
    ResourceGroup,
)
from interlock_servers.transports.grpc_descriptors import MethodNeed
from interlock_servers.transports.grpc_record import JsonValue, Record
from interlock_servers.transports.grpc_reflection import quoted
from interlock_tools.errors import ComponentError

MAX_PRIORITY = 2_147_483_647


def check_status(answer: Record, need: MethodNeed) -> None:
    """The answer has a Status and it is ok; otherwise a ComponentError that says the state."""
    state = "nothing was changed" if need.is_read else "some of it may have been done: read back"
    status = answer.record("status")
    if status is None:
        raise failed("NO_STATUS", f"{need.name} came without a Status; {state}")
    if not status.flag("ok"):
        raise failed("NOT_OK", f"{need.name}: {quoted(status.text('diag_msg'))}; {state}")


def failed(code: str, message: str) -> ComponentError:
    """A failure of DPS, with our word for it."""
    return ComponentError(COMPONENT, code, message)


def entity_of(record: Record) -> Entity:
    """One entity of a topology."""
    entity = record.structure("entity")
    name, kind = entity.get("Name"), entity.get("Type")
    if not isinstance(name, str) or not isinstance(kind, str) or not name:
        raise failed("BAD_TOPOLOGY", "an entity has no Name or no Type")
    # 0.10 calls it OperatingLimit; up to 0.9 it is Constraints.
    limit = entity.get("OperatingLimit") or entity.get("Constraints")
    return Entity(name, kind, _budget_w(name, limit), record.texts("children"))


def _budget_w(name: str, limit: JsonValue) -> float | None:
    """Watts of a limit; None where there is none. A unit that we do not know is not guessed."""
    power = limit.get("PowerValue") if isinstance(limit, dict) else None
    if not isinstance(power, dict):
        return None
    value, unit = power.get("Value"), power.get("Type")
    if unit != "W" or not isinstance(value, float) or not (math.isfinite(value) and value >= 0):
        raise failed("BAD_TOPOLOGY", f"the budget of {quoted(name)} is not in watts: {power!r}")
    return value


def group_of(record: Record) -> ResourceGroup:
    """One resource group, with what its owner keeps in its properties."""
    name = record.text("group_name")
    properties = record.structure("properties")

    def text(key: str) -> str | None:
        value = properties.get(key)
        return value if isinstance(value, str) and value else None

    def number(key: str, low: float, high: float) -> float | None:
        value = properties.get(key)
        if value is None:
            return None
        try:
            value = float(value) if isinstance(value, float | str) else math.nan
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # a promise that cannot be read is not no promise
            raise failed("BAD_GROUP", f"{quoted(name)}: property {key} is {quoted(str(value))}")
        return value

    # A field of its own since 0.10, where 0 is the default; before that it is in the properties.
    listed = (
        record.whole("priority")
        if record.has_field("priority")
        else number("priority", 0, MAX_PRIORITY)
    )
    return ResourceGroup(
        name=name,
        node_ids=tuple(sorted(record.texts("resource_names"))),
        activation_status=record.text("activation_status"),
        tenant=text("tenant"),
        workload_class=text("workload_class"),
        slo_floor=number("slo_floor", 1e-6, 1.0),
        priority=None if listed is None else int(listed),
    )


def node_of(record: Record) -> NodePower:
    """One node's metrics."""
    node_id = record.text("name")
    gpus = []
    for gpu in record.records("gpus"):
        gpu_id = gpu.text("id")
        if not (gpu_id.isascii() and gpu_id.isdigit()):
            raise failed("BAD_METRICS", f"{quoted(node_id)} names a GPU {quoted(gpu_id)}")
        gpus.append(
            GpuLimit(
                gpu_id=int(gpu_id),
                power_w=_finite(gpu.number("power_usage")),
                set_w=_positive(gpu.number("set_limit")),
                min_w=_positive(gpu.number("min_limit")),
                max_w=_positive(gpu.number("max_limit")),
                temperature_c=_finite(gpu.number("temperature_celsius")),
            )
        )
    gpus.sort(key=lambda gpu: gpu.gpu_id)
    count, ids = record.whole("num_gpus"), {gpu.gpu_id for gpu in gpus}
    if len(ids) != len(gpus) or not ids <= set(range(count)):
        raise failed("BAD_METRICS", f"{quoted(node_id)} has {count} GPUs and names {sorted(ids)}")
    return NodePower(node_id, count, _finite(record.number("power_usage")), tuple(gpus))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _positive(value: float | None) -> float | None:
    """A limit of no watts is one that was not read."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


def status_of(name: str, record: Record) -> NodeStatus:
    """One node's status."""
    state = record.record("current_state")
    errors = (record.text("last_access_error"), record.text("last_policy_error"))
    return NodeStatus(
        node_id=name,
        inaccessible_since=record.moment("inaccessible_since"),
        last_access_at=record.moment("last_successful_access_time"),
        resource_group=state.text("resource_group") if state else "",
        policy_name=state.text("allocated_policy_name") if state else "",
        errors=tuple(filter(None, errors)),
    )


def allocation_of(verdict: Record, devices: Sequence[Record]) -> AllocationCheck:
    """The verdict of a dry run and what it says of each device."""
    selection = verdict.record("allocation_policy_selection")
    downgraded = selection is not None and selection.flag("policy_would_be_downgraded")
    power_w: dict[str, tuple[float | None, float | None]] = {}
    for device in devices:
        status = device.record("device_allocation_status")
        power = status.record("power_distribution_status") if status else None
        downgraded |= status is not None and status.flag("policy_would_be_downgraded")
        if power is not None:
            watts = power.number("allocated_watts"), power.number("capacity_watts")
            power_w[device.text("device_id")] = watts
    over = sorted(n for n, (a, c) in power_w.items() if a is not None and c is not None and a > c)
    return AllocationCheck(
        would_succeed=verdict.flag("allocation_would_succeed"),
        downgraded=downgraded,
        power_w=power_w,
        notes=tuple(
            f"{name} would have {power_w[name][0]:.0f} W of {power_w[name][1]:.0f} W allocated"
            for name in over
        ),
    )


def policy_of(gpu_id: int, watts: float | None) -> dict[str, object]:
    """One GPU's policy: watts of that GPU alone, unlike a policy of the element type GPU."""
    if watts is None:
        return {"gpu_id": gpu_id}
    return {"gpu_id": gpu_id, "power_limit": {"watts": float(watts)}}


def cap_results_of(
    asked: Mapping[tuple[str, int], float | None], answer: Record, need: MethodNeed
) -> tuple[CapResult, ...]:
    """The results, one for each GPU asked; anything else is a failure that says so."""
    set_w: dict[tuple[str, int], float | None] = {}
    not_ok: list[str] = []
    for result in answer.records("results"):
        gpu_id = result.known_whole("gpu_id")
        where = f"{quoted(result.text('resource_name'))}/{'?' if gpu_id is None else gpu_id}"
        if not result.flag("ok"):
            not_ok.append(f"{where}: {quoted(result.text('diag_msg'))}")
        elif gpu_id is not None:
            key = (result.text("resource_name"), gpu_id)
            set_w[key] = _positive(result.number("set_limit"))
            if key not in asked:
                not_ok.append(f"{where}: was set and never asked for")
    if not_ok:
        done = len(set(asked) & set(set_w))
        text = f"{'; '.join(not_ok[:5])}; {done} of {len(asked)} limits were set: read back"
        raise failed("GPU_NOT_OK", text)
    check_status(answer, need)
    missing = [f"{node_id}/{gpu_id}" for node_id, gpu_id in asked if (node_id, gpu_id) not in set_w]
    if missing:
        text = f"no result for {', '.join(missing[:5])}; whether it was set is unknown: read back"
        raise failed("MISSING_RESULT", text)
    return tuple(CapResult(*key, watts, set_w[key]) for key, watts in asked.items())
