"""What may be changed: an operation is a named object that describes one kind of change.

It knows its facts, its reach, how to act and how to see whether the act held. It does not know who
asks, whether it is allowed, or what is written to the ledger: that is the guard's.
"""

from abc import ABC, abstractmethod
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import Claim, FactNeed, FactSet
from interlock_tools.identity import Target


class Effect(StrEnum):
    """How hard it is to take back."""

    READ = "read"
    REVERSIBLE = "reversible"
    DISRUPTIVE = "disruptive"
    IRREVERSIBLE = "irreversible"


class Arguments(BaseModel):
    """Base of every operation's arguments: unknown ones are refused, types are strict."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Happened(StrEnum):
    """What a read-back found of an act whose answer was lost."""

    YES = "yes"
    NO = "no"
    PARTLY = "partly"
    UNKNOWN = "unknown"


class ReadBack(BaseModel):
    """The component's present state, seen from the operation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    happened: Happened
    evidence: dict[str, Any] = Field(default_factory=dict)


class Held(StrEnum):
    """Whether the promised effect shows."""

    YES = "yes"
    NOT_YET = "not_yet"
    NO = "no"


class Verdict(BaseModel):
    """What an independent source shows; `source` is another one than that which was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    held: Held
    source: str
    evidence: dict[str, Any] = Field(default_factory=dict)


class DryRun(BaseModel):
    """The component's own answer to a rehearsal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    would_succeed: bool
    notes: tuple[str, ...] = ()


class Expiry(BaseModel):
    """What brings an effect back to its safe value when its time is over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_s: float = Field(gt=0)
    operation: str
    arguments: dict[str, Any]


A = TypeVar("A", bound=Arguments)


class Operation(ABC, Generic[A]):
    """One kind of change of one component.

    A change row holds only `name` and the canonical arguments, so that another process can finish
    what this one began; an operation object must therefore hold no state of a single change.

    Attributes:
        name: `component.verb_noun`.
        effect: how hard it is to take back.
        arguments: the model of its arguments.
        deadline_s: how long after the act the effect may take to show.
        compensates: whether `compensate` is implemented.
        compensation_repeats: whether `compensate` may come twice, as where it sets what was; else
            one that was cut short is left to a person.
        resumes: whether `execute` under the same key goes on where it was cut short; else what
            happened is read back.
        act_timeout_s: how long `execute` and `compensate` may take; then the answer is lost.
    """

    name: ClassVar[str]
    effect: ClassVar[Effect]
    arguments: type[A]
    deadline_s: ClassVar[float]
    compensates: ClassVar[bool] = False
    compensation_repeats: ClassVar[bool] = False
    resumes: ClassVar[bool] = False
    act_timeout_s: ClassVar[float] = 60.0

    def of(self, key: str) -> Self:
        """The same operation as one change sees it: for components that keep the key of an act.

        What it gives may hold `key`, which stands in the row, and nothing else of a change. By
        default it is the operation itself.
        """
        del key
        return self

    @abstractmethod
    def target(self, arguments: A) -> Target:
        """The thing that locks and approvals are taken on."""

    @abstractmethod
    def facts(self, arguments: A) -> tuple[FactNeed, ...]:
        """Every fact that it needs; one that is missing or stale is a refusal."""

    def claims(self, arguments: A) -> tuple[Claim, ...]:
        """What these arguments say of the plant; one that no source of ours confirms is a refusal.

        Unlike a fact it is not needed to know the reach, and without it the arguments are complete.
        """
        del arguments
        return ()

    @abstractmethod
    def blast_radius(self, arguments: A, facts: FactSet) -> BlastRadius:
        """Whom it reaches and what it breaks, from the facts alone.

        Raises:
            InvalidRequestError: an argument names what does not exist, or is out of range.
        """

    async def dry_run(self, arguments: A) -> DryRun | None:
        """The component's own rehearsal, or None where it has none."""
        del arguments
        return None

    @property
    def rehearses(self) -> bool:
        """Whether it has a `dry_run` of its own, and so the component to wait for."""
        return type(self).dry_run is not Operation.dry_run

    @abstractmethod
    async def execute(self, arguments: A, key: str) -> dict[str, Any]:
        """Act once; `key` identifies the change. Returns what the component answered.

        Raises:
            ComponentError: the component failed and said so.
            UnavailableError: no answer; what happened is unknown and must be read back.
        """

    @abstractmethod
    async def read_back(self, arguments: A) -> ReadBack:
        """Ask the component whether the act stands, after an answer was lost."""

    @abstractmethod
    async def verify(self, arguments: A, before: FactSet, since: datetime) -> Verdict:
        """Ask another source than the one just written whether the effect shows.

        A reading older than `since`, the moment of the act, says nothing about it.
        """

    def expiry(self, arguments: A, before: FactSet) -> Expiry | None:
        """What to do when its time is over, where the arguments give it one.

        It must be safe without asking anybody: the approval of this change covers it.
        """
        del arguments, before
        return None

    async def compensate(self, arguments: A, before: FactSet) -> dict[str, Any]:
        """Bring back what `before` says, where the operation declares how."""
        raise InvalidRequestError(f"{self.name} declares no compensation for {arguments!r}")

    async def bring_back(self, arguments: A, before: FactSet, key: str) -> dict[str, Any]:
        """`compensate`, for an operation whose component asks under which change it is done."""
        del key
        return await self.compensate(arguments, before)
