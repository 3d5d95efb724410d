"""What one run asks for and where it is killed; everything follows from a seed and its number."""

import random
from dataclasses import dataclass
from typing import Literal

from interlock_evals.chaos.plant import START_PCT, Mishap

Point = Literal["before_commit", "after_commit", "before_act", "inside_act", "moment"]
POINTS: tuple[Point, ...] = ("before_commit", "after_commit", "before_act", "inside_act", "moment")
MISHAPS: tuple[Mishap, ...] = ("none", "none", "none", "answer_lost", "lost_before", "ignores")
ASKS = (1, 2, 3)
COMMITS = 14  # of a run that asks for one or two things there are about so many
MOMENT_MS = 250.0
PART_PLANS, PART_UNAPPROVED, PART_EXPIRING = 0.2, 0.1, 0.2  # of what is asked
PART_STANDBY, PART_VOTED_FIRST, PART_SECOND_KILL = 0.3, 0.7, 0.4  # of the runs


@dataclass(frozen=True)
class Kill:
    """Where a process ends: the `number`th time that the point is reached, or after `after_ms`."""

    point: Point
    number: int = 1
    after_ms: float = 0.0


@dataclass(frozen=True)
class Move:
    """A move of one valve."""

    valve_id: str
    position_pct: int
    expires_in_s: float | None = None


@dataclass(frozen=True)
class Ask:
    """What is proposed: one move, or a plan of several; and whether somebody approves it."""

    moves: tuple[Move, ...]
    approved: bool


@dataclass(frozen=True)
class Scenario:
    """One run.

    Attributes:
        asks: what the first process proposes and lets people approve.
        mishaps: what each valve does wrong.
        kills: where each process in turn is killed; the last one, which finishes, is not.
        standby: whether the next process stands by before the first is killed.
        voted_first: whether all is asked and voted on before the first begins to work and can be
            killed; otherwise it is while that goes on.
    """

    seed: int
    number: int
    asks: tuple[Ask, ...]
    mishaps: dict[str, Mishap]
    kills: tuple[Kill, ...]
    standby: bool
    voted_first: bool


def scenario_of(seed: int, number: int) -> Scenario:
    """The scenario of this number; always the same."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 - repeatable, not secret
    asks: list[Ask] = []
    mishaps: dict[str, Mishap] = {}
    for place in range(chance.choice(ASKS)):
        long = chance.random() < PART_PLANS
        moves = tuple(_move(chance, f"valve-{place}-{step}") for step in range(1 + long))
        mishaps |= {move.valve_id: chance.choice(MISHAPS) for move in moves}
        asks.append(Ask(moves, approved=chance.random() >= PART_UNAPPROVED))
    kills = [_kill(chance)]
    if chance.random() < PART_SECOND_KILL:
        kills.append(_kill(chance))
    return Scenario(
        seed,
        number,
        tuple(asks),
        mishaps,
        tuple(kills),
        standby=chance.random() < PART_STANDBY,
        voted_first=chance.random() < PART_VOTED_FIRST,
    )


def race_of(seed: int, number: int) -> Scenario:
    """One approved move for which many reach at the same time; nobody is killed."""
    ask = Ask((Move("valve-0-0", 40),), approved=True)
    return Scenario(seed, number, (ask,), {}, (), standby=False, voted_first=True)


def _move(chance: random.Random, valve_id: str) -> Move:
    position = chance.choice([pct for pct in range(10, 101, 5) if pct != START_PCT])
    expires_in_s = 30.0 if chance.random() < PART_EXPIRING else None
    return Move(valve_id, position, expires_in_s)


def _kill(chance: random.Random) -> Kill:
    point = chance.choice(POINTS)
    if point == "moment":
        return Kill(point, after_ms=chance.uniform(0.0, MOMENT_MS))
    return Kill(point, number=chance.randint(1, COMMITS if point.endswith("commit") else 2))
