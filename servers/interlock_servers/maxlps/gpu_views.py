"""What the tools of GPUs answer with: what a driver or a BMC says, and what it does not.

A field that is absent is unknown; `unknown` names it, and `get_gpu` says why.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema

from interlock_servers.devices.client import NodeState, NodeView
from interlock_servers.devices.models import GpuReading, Unread, known
from interlock_servers.devices.profiles import names_of
from interlock_servers.devices.why_slow import WhySlow
from interlock_servers.maxlps.views import ByName, Untold
from interlock_servers.page import Listing, Page, Row
from interlock_servers.plant_text import PlantJson, PlantName, PlantWords

UNKNOWN = "unknown"  # in the place of a cause: something could not be told


class HostRow(Row):
    """One node and what reads its GPUs."""

    identity: ClassVar[tuple[str, ...]] = ("node_id", "state")

    node_id: PlantName
    state: str
    gpus: int | None = None
    by: PlantName | None = None
    vendors: list[str] | None = None
    power_w: float | None = None
    caps_held: int | None = None
    held_by: PlantName | None = None
    takes_limits: bool | None = None
    lies: bool | None = None
    why: PlantWords | None = None


class Hosts(Listing):
    """Nodes in the order of the settings."""

    listed: ClassVar[str] = "nodes"

    nodes: Annotated[list[HostRow], Untold]


class GpuRow(Row):
    """One GPU now."""

    identity: ClassVar[tuple[str, ...]] = ("node_id", "gpu")

    node_id: PlantName
    gpu: int
    state: str
    vendor: str | None = None
    model: PlantName | None = None
    power_w: float | None = None
    instant_w: float | None = None
    limit_w: float | None = None
    enforced_w: float | None = None
    min_w: float | None = None
    max_w: float | None = None
    energy_j: float | None = None
    core_c: float | None = None
    memory_c: float | None = None
    events: list[str] | None = None
    ecc_uncorrected: int | None = None
    rows: str | None = None
    xids: list[int] | None = None
    links_down: list[int] | None = None
    mig: bool | None = None
    unknown: list[str] | None = None


class Gpus(Listing):
    """GPUs by node and place; `silent`: nodes that show none now."""

    listed: ClassVar[str] = "gpus"

    silent: Annotated[list[PlantName], WithJsonSchema({"type": "array"})]
    gpus: Annotated[list[GpuRow], Untold]


class OneGpu(Page):
    """Everything of one GPU; `unknown` says why a value is not there."""

    gpu: PlantJson
    cap: PlantJson | None = Field(default=None, description="held by its agent; ends by itself")
    unknown: Annotated[dict[str, PlantWords], ByName]


class Held(Row):
    """One cause for one GPU."""

    identity: ClassVar[tuple[str, ...]] = ("node_id", "gpu", "cause", "says")

    node_id: PlantName
    gpu: int | None = None
    cause: str
    now: bool | None = None
    share: float | None = None
    says: PlantWords | None = None


class WhySlowView(Listing):
    """Causes with their evidence, by GPU."""

    listed: ClassVar[str] = "findings"

    looked_at: int
    by_cause: Annotated[dict[str, int], ByName]
    silent: Annotated[list[PlantName], WithJsonSchema({"type": "array"})]
    findings: Annotated[list[Held], Untold]


def is_shown(view: NodeView) -> bool:
    """Whether its readings may be used."""
    return view.state is NodeState.FRESH and view.answer is not None


def gpus_of(view: NodeView) -> tuple[GpuReading, ...]:
    """Its GPUs, as they were last believed."""
    return () if view.answer is None else view.answer.gpus


def host_row(view: NodeView) -> HostRow:
    """A node; of one that is not fresh only what it is, and why it is silent."""
    if not is_shown(view) or view.answer is None:
        return HostRow(
            node_id=view.node_id, state=view.state.value, lies=view.is_lying, why=view.why or None
        )
    answer = view.answer
    drawn_w = [known(gpu.power_w) for gpu in answer.gpus]
    told_w = [watts for watts in drawn_w if watts is not None]
    return HostRow(
        node_id=view.node_id,
        state=view.state.value if answer.gpus else "empty",
        gpus=len(answer.gpus),
        by=answer.says,
        vendors=sorted({gpu.identity.vendor.value for gpu in answer.gpus}),
        power_w=round(sum(told_w)) if told_w and len(told_w) == len(drawn_w) else None,
        caps_held=len(answer.held),
        held_by=", ".join(sorted({cap.controller_id for cap in answer.held})) or None,
        takes_limits=answer.takes_writes,
        lies=False,
        why=view.why or None,
    )


def gpu_row(view: NodeView, gpu: GpuReading) -> GpuRow:
    """One GPU; of a node that is not fresh only that it is there."""
    if not is_shown(view):
        return GpuRow(node_id=view.node_id, gpu=gpu.identity.index, state=view.state.value)
    rows, links, xids = known(gpu.remapped_rows), known(gpu.links_up), known(gpu.xids)
    mig = known(gpu.mig)
    return GpuRow(
        node_id=view.node_id,
        gpu=gpu.identity.index,
        state=view.state.value,
        vendor=gpu.identity.vendor.value,
        model=known(gpu.identity.model),
        power_w=_tenth(gpu.power_average_w),
        instant_w=_tenth(gpu.power_instant_w),
        limit_w=_tenth(gpu.limits.now_w),
        enforced_w=_tenth(gpu.limits.enforced_w),
        min_w=_tenth(gpu.limits.min_w),
        max_w=_tenth(gpu.limits.max_w),
        energy_j=_whole(gpu.energy_j),
        core_c=_tenth(gpu.temperature_c),
        memory_c=_tenth(gpu.memory_temperature_c),
        events=_events(gpu),
        ecc_uncorrected=known(gpu.ecc.uncorrected),
        rows=None if rows is None else _rows(rows.is_pending, rows.has_failed),
        xids=None if xids is None else [xid.code for xid in xids],
        links_down=None if links is None else [i for i, is_up in enumerate(links) if not is_up],
        mig=None if mig is None else mig.is_on,
        unknown=sorted(gpu.unread()) or None,
    )


def one_gpu(view: NodeView, gpu: GpuReading, observed_at: datetime, origin: str) -> OneGpu:
    """Everything that is known of it, and why the rest is not."""
    identity, limits, ecc = gpu.identity, gpu.limits, gpu.ecc
    mig, profiles = known(gpu.mig), known(gpu.profiles)
    rows, xids, links = known(gpu.remapped_rows), known(gpu.xids), known(gpu.links_up)
    told: dict[str, Any] = {
        **gpu_row(view, gpu).model_dump(exclude={"unknown", "links_down", "xids", "rows", "mig"}),
        "uuid": known(identity.uuid),
        "serial": known(identity.serial),
        "bus_id": known(identity.bus_id),
        "default_w": known(limits.default_w),
        "requested_w": known(limits.requested_w),
        "held_lower_by_another": limits.is_held_lower_by_another,
        "held_s": {
            kind.value: held_s
            for kind, held_s in gpu.violations_s.items()
            if not isinstance(held_s, Unread)
        },
        "ecc_on": known(ecc.is_on),
        "ecc_corrected": known(ecc.corrected),
        "ecc_uncorrected_ever": known(ecc.uncorrected_ever),
        "remapped_rows": None
        if rows is None
        else {
            "corrected": rows.corrected,
            "uncorrected": rows.uncorrected,
            "pending": rows.is_pending,
            "failed": rows.has_failed,
        },
        "xids": None
        if xids is None
        else [{"code": xid.code, "seen_at": xid.seen_at.isoformat()} for xid in xids],
        "links_up": None if links is None else [int(is_up) for is_up in links],
        "mig": None if mig is None else {"on": mig.is_on, "on_after_reset": mig.will_be_on},
        "profiles": None if profiles is None else names_of(profiles.enforced) or "none",
    }
    held = () if view.answer is None else view.answer.held
    cap = next((cap for cap in held if cap.key == identity.key), None)
    return OneGpu(
        observed_at=observed_at,
        origin=origin,
        gpu={name: value for name, value in told.items() if value is not None},
        cap=None
        if cap is None
        else {
            "limit_w": cap.limit_w,
            "safe_w": cap.safe_w,
            "left_s": round(cap.left_s),
            "state": cap.state.value,
            "controller_id": cap.controller_id,
            "change_id": cap.change_id,
        },
        unknown={name: str(why) for name, why in gpu.unread().items()},
    )


def findings_of(node_id: str, gpu: int, found: WhySlow) -> Iterator[Held]:
    """A row for each cause, and one for what could not be told."""
    for finding in found.findings:
        yield Held(
            node_id=node_id,
            gpu=gpu,
            cause=finding.cause.value,
            now=finding.is_now,
            share=None if finding.share is None else round(finding.share, 3),
            says=finding.says,
        )
    if found.unknown:
        yield Held(node_id=node_id, gpu=gpu, cause=UNKNOWN, says="; ".join(found.unknown))


def _events(gpu: GpuReading) -> list[str] | None:
    if isinstance(gpu.events, Unread):
        return None
    return [bit.name.lower() for bit in gpu.events if bit.name]


def _rows(is_pending: bool, has_failed: bool) -> str:
    if has_failed:
        return "failed"
    return "pending" if is_pending else "ok"


def _tenth(value: float | Unread) -> float | None:
    return None if isinstance(value, Unread) else round(value, 1)


def _whole(value: float | Unread) -> float | None:
    return None if isinstance(value, Unread) else round(value)
