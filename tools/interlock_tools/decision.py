"""A decision and its reasons: what the policy answered, and who could still say yes."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Answer(StrEnum):
    """The three answers of a policy."""

    ALLOW = "allow"
    REQUIRE_APPROVAL = "require_approval"
    REFUSE = "refuse"


class RuleHit(BaseModel):
    """A rule that decided, with the sentence that an approver or a caller can read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule_id: str
    reason: str


class Quorum(BaseModel):
    """How many distinct people of which role must approve; `typed_target` asks them to type it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: int = Field(ge=1, le=5)
    role: str
    typed_target: bool = False


class Decision(BaseModel):
    """The answer, the rules that gave it and the version of the policy that they stand in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: Answer
    rules: tuple[RuleHit, ...]
    policy_version: str
    quorum: Quorum | None = None

    def sentence(self) -> str:
        """One line for a person: the answer and why."""
        return f"{self.answer}: " + "; ".join(f"{r.reason} [{r.rule_id}]" for r in self.rules)
