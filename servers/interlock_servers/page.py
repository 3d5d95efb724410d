"""What every answer of a server carries: how old it is and where it came from."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class Page(BaseModel):
    """Base of every tool's answer; a field that is absent is unknown, never zero, never healthy."""

    model_config = ConfigDict(frozen=True)

    observed_at: datetime = Field(description="when the plant was so")
    origin: str = Field(description="the source that said so")
    stale_since: datetime | None = Field(
        default=None, description="set when the source is out of reach: these are old values"
    )

    def text(self) -> str:
        """The answer as compact JSON, for clients that show only text."""
        return self.model_dump_json(exclude_none=True)
