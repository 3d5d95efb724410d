"""Blast radius: whom and what a change reaches, computed from facts, never claimed by a caller."""

from pydantic import BaseModel, ConfigDict, Field

Ids = frozenset[str]


class BlastRadius(BaseModel):
    """What a change touches, and what it would break if it were carried out.

    `watts_moved` is the sum over GPUs of the absolute change of their limit; `power_rise_w` the sum
    over those GPUs whose limit goes up, so that 0 means that no single one rises.
    `slo_floors_broken` and `budgets_broken` name the jobs and power domains that could no longer
    hold their promise. `power_taken_from` names those whose limits fall while others' rise.
    `all_feeds` and `open_ended` say that a target of the grid which it sends or follows is for
    every feed because it names none, and that it has no end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int = Field(default=0, ge=0)
    hosts: Ids = frozenset()
    racks: Ids = frozenset()
    nvlink_domains: Ids = frozenset()
    power_domains: Ids = frozenset()
    jobs: Ids = frozenset()
    tenants: Ids = frozenset()
    watts_moved: int = Field(default=0, ge=0)
    power_rise_w: int = Field(default=0, ge=0)
    slo_floors_broken: Ids = frozenset()
    budgets_broken: Ids = frozenset()
    power_taken_from: Ids = frozenset()
    all_feeds: bool = False
    open_ended: bool = False

    def __or__(self, other: "BlastRadius") -> "BlastRadius":
        """Both together: ids are united, counts of devices and watts are added."""
        return BlastRadius(
            gpus=self.gpus + other.gpus,
            hosts=self.hosts | other.hosts,
            racks=self.racks | other.racks,
            nvlink_domains=self.nvlink_domains | other.nvlink_domains,
            power_domains=self.power_domains | other.power_domains,
            jobs=self.jobs | other.jobs,
            tenants=self.tenants | other.tenants,
            watts_moved=self.watts_moved + other.watts_moved,
            power_rise_w=self.power_rise_w + other.power_rise_w,
            slo_floors_broken=self.slo_floors_broken | other.slo_floors_broken,
            budgets_broken=self.budgets_broken | other.budgets_broken,
            power_taken_from=self.power_taken_from | other.power_taken_from,
            all_feeds=self.all_feeds or other.all_feeds,
            open_ended=self.open_ended or other.open_ended,
        )

    def broken(self) -> str:
        """The floors and budgets that would break, by name; empty where none would."""
        parts = [
            f"{what}: {', '.join(sorted(names))}"
            for what, names in (
                ("floors", self.slo_floors_broken),
                ("budgets", self.budgets_broken),
            )
            if names
        ]
        return "; ".join(parts)

    def overlaps(self, other: "BlastRadius") -> bool:
        """Whether both reach the same host."""
        return bool(self.hosts & other.hosts)
