"""The power agent, rule planner: follows the grid, watches breakers, leaks and heat, restores.

It observes over MCP, plans with the read-only allocator, proposes, and watches what becomes of it.
It never approves, never acts, and holds nothing that could reach the plant.
"""

from interlock_agents.notes import Note
from interlock_agents.patience import BACK_OFF_S
from interlock_agents.power.agent import OBSERVE_EVERY_S, PowerAgent
from interlock_agents.power.wishes import NOTICE_S, Wish, wish_of

__all__ = [
    "BACK_OFF_S",
    "NOTICE_S",
    "OBSERVE_EVERY_S",
    "Note",
    "PowerAgent",
    "Wish",
    "wish_of",
]
