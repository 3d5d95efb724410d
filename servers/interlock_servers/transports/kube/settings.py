"""Which cluster, as whom, and how patient."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ClusterSettings(BaseModel):
    """One cluster. Credentials stay in the kubeconfig, or with the pod's service account.

    Attributes:
        name: what people and answers call it.
        kubeconfig: the file; its exec plugins are run, and it is never written.
        context: of that file; None is its current one. Name it where the file has several.
        in_cluster: use the service account of the pod that we run in, instead of a file.
        deadline_s: for one call; a listing has it for each page.
        page: objects asked for at once.
        quiet_s: a watch that says nothing for so long is taken up again from where it was; so old
            can a cached reading be before it is shown as stale.
        resync_s: after so long everything is listed anew and compared with what the watch told.
        most_bytes: of one answer, or one event of a watch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="cluster", min_length=1, max_length=100)
    kubeconfig: Path | None = None
    context: str | None = None
    in_cluster: bool = False
    deadline_s: float = Field(default=10.0, gt=0, le=120)
    page: int = Field(default=500, ge=1, le=5_000)
    quiet_s: float = Field(default=60.0, ge=1, le=600)
    resync_s: float = Field(default=900.0, ge=10, le=86_400)
    most_bytes: int = Field(default=64 * 1024 * 1024, ge=65_536)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.in_cluster == (self.kubeconfig is not None):
            raise ValueError("name a kubeconfig, or set in_cluster, and not both")
        if self.in_cluster and self.context is not None:
            raise ValueError("context belongs to a kubeconfig, not to in_cluster")
        return self
