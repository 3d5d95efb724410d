"""Why, in words: reasons that approvers read, and what only people can do."""

from typing import Any

from interlock_agents.own_changes import tagged
from interlock_agents.power.watching import Excursion
from interlock_agents.power.wishes import Wish

RESTORE = "restore"  # the purpose of what goes up again


def kilowatts(watts: float | None) -> str:
    """Watts as people read them."""
    return "no limit" if watts is None else f"{watts / 1e3:.0f} kW"


def of_grid(limit_w: float) -> str:
    """The purpose of what is done for a limit of the grid."""
    return f"grid {limit_w:.12g}"


def cap_reason(wish: Wish, plan: dict[str, Any]) -> str:
    """Why caps go down for the grid; of a plan that is not enough it says so."""
    told = f"grid load target {wish.correlation_id or 'unnamed'}: site at most "
    told += f"{kilowatts(wish.limit_w)} {wish.when}; "
    kept = plan["work_kept_pct"]
    missing = ", ".join(f"{watts} W at {name}" for name, watts in plan["missing_w"].items())
    if plan["feasible"]:
        told += f"the plan keeps {kept:.1f} % of the work and every serving floor"
    else:
        told += (
            f"partial: the lowest caps that keep every floor, {kept:.1f} % of the work; at the "
            f"hardest load {missing} would still be missing"
        )
    return tagged(told, of_grid(wish.limit_w or 0.0))


def excursion_reason(one: Excursion, plan: dict[str, Any]) -> str:
    """Why caps go down under one domain."""
    what = {
        "breaker": "caps under it keep it within its budget at the hardest load",
        "leak": "the lowest caps that keep every floor give people time",
        "heat": f"caps under it lower its heat to {kilowatts(one.limit_w)}",
    }[one.kind]
    partial = (
        "" if plan["feasible"] or one.kind == "leak" else "; not all of it, floors forbid more"
    )
    return tagged(f"{one.why}: {what}{partial}", one.purpose)


def raise_reason(plan: dict[str, Any]) -> str:
    """Why caps go up again."""
    left = plan["steps_left"]
    more = f", {left} more steps follow" if left else ", the last step"
    told = "what asked for these caps has ended; they rise as far as every budget allows at the "
    return tagged(f"{told}hardest load{more}", RESTORE)


def for_people(plan: dict[str, Any]) -> str:
    """What a plan proposes that no operation here carries out; empty where it proposes nothing."""
    pause, move = plan.get("pause") or [], plan.get("move") or {}
    parts = [f"pause {', '.join(pause)}"] if pause else []
    parts += [f"move {job} to {rack}" for job, rack in move.items()]
    if not parts:
        return ""
    cost = plan.get("cost_gpu_h")
    price = "" if cost is None else f", {cost:.1f} GPU-hours of work for an hour"
    return f"{' and '.join(parts)}{price}; there is no tool for it, people have to"
