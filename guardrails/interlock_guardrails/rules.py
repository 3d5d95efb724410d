"""The rules of a site that are data: its size, what is protected, freezes, windows, expiry."""

from datetime import datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from interlock_tools.identity import Principal, PrincipalKind

WEEK_S = 7 * 86_400.0
YEAR_S = 366 * 86_400.0
EVERY_AGENT = "*"


class AgentBudget(BaseModel):
    """What one agent may spend in any hour, counted from when each change was asked for.

    Attributes:
        agent_id: the agent, such as `agent:power`; `*` is each agent that has no budget of its own.
        watts_moved_per_hour: how many watts its changes may move, up and down added; None: any.
        gpus_reached_per_hour: how many GPUs they may reach, one twice counted twice; None: any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    agent_id: str = Field(min_length=1, max_length=200)
    watts_moved_per_hour: int | None = Field(default=None, gt=0)
    gpus_reached_per_hour: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        """A budget without a figure would look like a limit and be none."""
        if self.watts_moved_per_hour is None and self.gpus_reached_per_hour is None:
            raise ValueError(f"the budget of {self.agent_id} names neither watts nor GPUs")
        return self


class SiteRules(BaseModel):
    """What the site says about changes, as data: sizes, protected things, freezes and expiry.

    Attributes:
        delegation_max_s: for how long a role may be delegated at most.
        break_glass_review_s: how soon after glass was broken two others have to have reviewed it.
        autonomy_max_s: for how long an agent may be let go unattended at most.
        autonomy_evidence_changes: how many succeeded changes that takes as evidence.
        agent_budgets: what agents may spend in an hour; an agent that none names has no budget.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site_id: str
    gpus: int = Field(ge=0)
    hosts: int = Field(ge=0)
    protected: frozenset[str] = frozenset()
    freezes: tuple[tuple[AwareDatetime, AwareDatetime], ...] = ()
    windows: tuple[tuple[AwareDatetime, AwareDatetime], ...] | None = None
    approval_expires_s: float = Field(default=900.0, gt=0, le=WEEK_S)
    delegation_max_s: float = Field(default=WEEK_S, gt=0, le=YEAR_S)
    break_glass_review_s: float = Field(default=WEEK_S, gt=0, le=YEAR_S)
    autonomy_max_s: float = Field(default=4 * WEEK_S, gt=0, le=YEAR_S)
    autonomy_evidence_changes: int = Field(default=10, ge=1, le=1000)
    agent_budgets: tuple[AgentBudget, ...] = ()

    @model_validator(mode="after")
    def _spans_have_a_length(self) -> Self:
        """A freeze that ends before it starts would freeze nothing, and nobody would know."""
        for start, end in (*self.freezes, *(self.windows or ())):
            if end <= start:
                raise ValueError(f"a freeze or window ends at {end}, not after its start {start}")
        return self

    @model_validator(mode="after")
    def _an_agent_has_one_budget(self) -> Self:
        """Of two nobody would know which one holds."""
        named = [budget.agent_id for budget in self.agent_budgets]
        for agent_id in named:
            if named.count(agent_id) > 1:
                raise ValueError(f"{agent_id} has {named.count(agent_id)} budgets; it can have one")
        return self

    def budget_of(self, principal: Principal) -> AgentBudget | None:
        """The budget that binds this principal: its own, else that of every agent; agents only."""
        if principal.kind is not PrincipalKind.AGENT:
            return None
        budgets = {budget.agent_id: budget for budget in self.agent_budgets}
        return budgets.get(principal.id, budgets.get(EVERY_AGENT))

    def frozen_at(self, now: datetime) -> bool:
        """Whether a freeze is in force."""
        return any(start <= now < end for start, end in self.freezes)

    def in_window(self, now: datetime) -> bool:
        """Whether changes are inside a window; without windows every moment is."""
        return self.windows is None or any(start <= now < end for start, end in self.windows)
