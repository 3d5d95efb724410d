"""The rules of a site that are data: its size, what is protected, freezes, windows, expiry."""

from datetime import datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

WEEK_S = 7 * 86_400.0
YEAR_S = 366 * 86_400.0


class SiteRules(BaseModel):
    """What the site says about changes, as data: sizes, protected things, freezes and expiry.

    Attributes:
        delegation_max_s: for how long a role may be delegated at most.
        break_glass_review_s: how soon after glass was broken two others have to have reviewed it.
        autonomy_max_s: for how long an agent may be let go unattended at most.
        autonomy_evidence_changes: how many succeeded changes that takes as evidence.
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

    @model_validator(mode="after")
    def _spans_have_a_length(self) -> Self:
        """A freeze that ends before it starts would freeze nothing, and nobody would know."""
        for start, end in (*self.freezes, *(self.windows or ())):
            if end <= start:
                raise ValueError(f"a freeze or window ends at {end}, not after its start {start}")
        return self

    def frozen_at(self, now: datetime) -> bool:
        """Whether a freeze is in force."""
        return any(start <= now < end for start, end in self.freezes)

    def in_window(self, now: datetime) -> bool:
        """Whether changes are inside a window; without windows every moment is."""
        return self.windows is None or any(start <= now < end for start, end in self.windows)
