"""Whose promise a rack without coolant breaks: what only people can avert, said before it happens.

No cap cools standing water. What has a floor and hangs on the rack has to move.
"""

from typing import Final

from interlock_agents.connection import PAGE, Servers

NAMED: Final = 8  # free nodes, in a sentence


async def promises_at(servers: Servers, rack: str) -> dict[str, str]:
    """For each group with a promise and nodes on the rack, what people should know and do.

    Raises:
        ComponentError: groups or nodes are not to be had.
    """
    floors: dict[str, float] = {}
    of_group: dict[str, list[str]] = {}
    async for page in servers.pages("maxlps", "list_groups", limit=PAGE):
        for group in page["groups"]:
            if group.get("slo_floor"):
                floors[group["name"]] = group["slo_floor"]
                of_group[group["name"]] = group.get("node_ids") or []
    here: set[str] = set()
    free: list[str] = []
    columns = ["rack_id", "group"]
    async for page in servers.pages("maxlps", "list_nodes", limit=PAGE, fields=columns):
        for node in page["nodes"]:
            if node.get("rack_id") == rack:
                here.add(node["node_id"])
            elif node.get("group") is None:
                free.append(node["node_id"])
    told: dict[str, str] = {}
    for name, floor in floors.items():
        lost = here & set(of_group[name])
        if lost:
            told[name] = (
                f"{name} cannot keep its floor of {floor:g} while {rack} has no coolant: "
                f"{len(lost)} of its {len(of_group[name])} nodes hang there; {_way_out(free)}; "
                "there is no tool for it, people have to"
            )
    return told


def _way_out(free: list[str]) -> str:
    if not free:
        return "no node is free to move them to, so make room elsewhere or let it run with less"
    more = f" and {len(free) - NAMED} more" if len(free) > NAMED else ""
    return f"move them to nodes without work: {', '.join(free[:NAMED])}{more}"
