"""Facts: what a source of ours says about the plant, with origin, version and age."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from interlock_tools.canonical import canonical
from interlock_tools.identity import Target


class Nature(StrEnum):
    """How a fact binds an approval: an identity must not change, a measurement may move."""

    IDENTITY = "identity"
    MEASUREMENT = "measurement"


class FactNeed(BaseModel):
    """One fact that an operation cannot do without, and how old it may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    subject: Target
    max_age_s: float = Field(gt=0)

    def __str__(self) -> str:
        return f"{self.kind} of {self.subject}"


class Fact(BaseModel):
    """An answer of a source.

    `version` is what the source gives to tell one state from another (a topology hash, a resource
    version, a digest of the value); `observed_at` is when the plant was so, not when we asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    subject: Target
    value: Any
    origin: str
    version: str
    observed_at: AwareDatetime
    nature: Nature


class Claim(BaseModel):
    """What a caller says is so. It counts only where a source of ours says the same.

    Attributes:
        need: the fact that would confirm it, and how old that may be.
        value: what the caller says that fact is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    need: FactNeed
    value: Any

    def sentence(self) -> str:
        """What is claimed, in words."""
        return f"{self.need} is {self.value!r}"

    def confirmed_by(self, fact: Fact) -> bool:
        """Whether the fact is of the claimed kind and subject, and exactly of the claimed value."""
        said, claimed = (
            canonical({"kind": kind, "subject": str(subject), "value": value})
            for kind, subject, value in (
                (fact.kind, fact.subject, fact.value),
                (self.need.kind, self.need.subject, self.value),
            )
        )
        return said == claimed


class Unknown(BaseModel):
    """The answer where there is none: never read as healthy, never as zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    subject: Target
    why: str


class FactSet:
    """The facts gathered for one change, by kind and subject."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._facts = {(fact.kind, fact.subject): fact for fact in facts}

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts.values())

    def __len__(self) -> int:
        return len(self._facts)

    def value(self, kind: str, subject: Target) -> Any:
        """The value of one fact.

        Raises:
            KeyError: the operation reads a fact that it did not list as needed.
        """
        return self._facts[kind, subject].value
