"""The rules of a site that are data: its size, what is protected, freezes, windows, expiry."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class SiteRules(BaseModel):
    """What the site says about changes, as data: sizes, protected things, freezes and expiry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site_id: str
    gpus: int = Field(ge=0)
    hosts: int = Field(ge=0)
    protected: frozenset[str] = frozenset()
    freezes: tuple[tuple[datetime, datetime], ...] = ()
    windows: tuple[tuple[datetime, datetime], ...] | None = None
    approval_expires_s: float = Field(default=900.0, gt=0)

    def frozen_at(self, now: datetime) -> bool:
        """Whether a freeze is in force."""
        return any(start <= now < end for start, end in self.freezes)

    def in_window(self, now: datetime) -> bool:
        """Whether changes are inside a window; without windows every moment is."""
        return self.windows is None or any(start <= now < end for start, end in self.windows)
