"""Faults as they come by themselves: at the measured rate, by class, each with its XID."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

import numpy as np

from interlock_plant.faults import GPU_KINDS, Fault, FaultKind
from interlock_plant.parameters import (
    A100_SXM,
    HBM_A100_RATIO,
    INTERRUPTIONS_PER_GPU_H,
    REPAIR_S,
)
from interlock_plant.site import SiteSpec
from interlock_tools.errors import InvalidRequestError


class FaultClass(NamedTuple):
    """A class of unexpected interruptions.

    Attributes:
        times: of 419 in 54 days on 16,384 H100 (Meta, secondary). [S]
        kind: what it does here.
        xids: what the driver may report, all equally likely: an assumption. [A] The codes are
            those of the vendor's documentation and of arXiv 2503.11901. [P]
    """

    name: str
    times: int
    kind: FaultKind
    xids: tuple[int, ...]


CLASSES: Final = (
    FaultClass("gpu", 148, FaultKind.GPU_LOST, (79, 119, 120, 62, 31, 74)),
    FaultClass("hbm", 72, FaultKind.HBM_ERROR, (48, 63, 64, 94, 95)),
    FaultClass("software", 54, FaultKind.SOFTWARE, (13, 43, 45)),
    FaultClass("network", 35, FaultKind.LINK_DOWN, ()),
    FaultClass("host_maintenance", 32, FaultKind.NODE_DOWN, ()),
    FaultClass("other", 78, FaultKind.NODE_DOWN, ()),
)


def random_faults(
    site: SiteSpec,
    *,
    seed: int,
    start: datetime,
    hours: float,
    rate_per_gpu_h: float = INTERRUPTIONS_PER_GPU_H,
) -> tuple[Fault, ...]:
    """The faults of a span, in order; hand each to `Plant.inject`.

    They strike independently, every GPU alike. How long each lasts is drawn too (assumed).

    Raises:
        InvalidRequestError: the span or the rate is negative or not finite.
    """
    for name, value in (("hours", hours), ("rate_per_gpu_h", rate_per_gpu_h)):
        if not (np.isfinite(value) and value >= 0):
            raise InvalidRequestError(f"{name} must be 0 or more, not {value}")
    rng = np.random.default_rng([seed, 7])
    counts = np.array([entry.times for entry in CLASSES], dtype=np.float64)
    whole = counts.sum()
    if site.gpu == A100_SXM:
        counts[1] /= HBM_A100_RATIO
    expected = rate_per_gpu_h * site.gpu_count * hours * counts.sum() / whole
    number = int(rng.poisson(expected))
    second = np.sort(rng.uniform(0.0, 3600.0 * hours, number)).astype(np.int64)
    drawn = rng.choice(len(CLASSES), size=number, p=counts / counts.sum())
    struck = rng.integers(0, site.gpu_count, number)
    lasts_s = np.maximum(rng.exponential(REPAIR_S, number), 60.0).astype(np.int64)
    out = []
    for at_s, place, gpu, length_s in zip(second, drawn, struck, lasts_s, strict=True):
        entry = CLASSES[place]
        is_gpu = entry.kind in GPU_KINDS
        out.append(
            Fault(
                entry.kind,
                site.gpu_id(int(gpu)) if is_gpu else site.node_ids[site.node_of_gpu[gpu]],
                at=start + timedelta(seconds=int(at_s)),
                lasts_s=int(length_s),
                xid=int(rng.choice(entry.xids)) if entry.xids else None,
            )
        )
    return tuple(out)
