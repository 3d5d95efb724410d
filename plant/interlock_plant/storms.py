"""Many faults at once: GPUs of many nodes that fail for reasons of their own, or for one in common.

What a lost CDU does to its racks needs no list: they grow hot and drop off by themselves.
"""

from datetime import datetime, timedelta
from typing import Final

import numpy as np

from interlock_plant.faults import Fault, FaultKind
from interlock_plant.random_faults import CLASSES
from interlock_plant.site import SiteSpec
from interlock_tools.errors import InvalidRequestError

XIDS: Final = (79, 48, 94, 74, 95, 119)


def xid_storm(
    site: SiteSpec,
    *,
    seed: int,
    start: datetime,
    nodes: int,
    within_s: int = 600,
    xids: tuple[int, ...] = XIDS,
    cdu_id: str | None = None,
) -> tuple[Fault, ...]:
    """One GPU fault on each of some nodes, in order; hand each to `Plant.inject`.

    Args:
        site: where.
        seed: of the nodes, their GPUs and the moments.
        start: aware; nothing happens before it.
        nodes: how many are struck, each by a fault of its own that lasts until repaired.
        within_s: the faults come within so long.
        xids: what is reported, in turn.
        cdu_id: a CDU that is lost at the start: one cause for all that it cools.

    Raises:
        InvalidRequestError: there are fewer nodes, no such CDU, or an XID that is no GPU's.
    """
    if not 0 <= nodes <= len(site.nodes):
        raise InvalidRequestError(f"{site.name} has {len(site.nodes)} nodes, not {nodes}")
    if cdu_id is not None and cdu_id not in site.cdu_ids:
        raise InvalidRequestError(f"{site.name} has no CDU {cdu_id!r}")
    kinds = {xid: entry.kind for entry in CLASSES[:2] for xid in entry.xids}
    unknown = [xid for xid in xids if xid not in kinds]
    if unknown or not (xids or not nodes):
        raise InvalidRequestError(f"xids must be some of {sorted(kinds)}; found {unknown}")
    rng = np.random.default_rng([seed, 8])
    struck = rng.choice(len(site.nodes), size=nodes, replace=False).tolist()
    seconds = np.sort(rng.integers(0, max(within_s, 1), nodes)).tolist()
    found = [] if cdu_id is None else [Fault(FaultKind.CDU_LOSS, cdu_id, at=start)]
    for number, (place, second) in enumerate(zip(struck, seconds, strict=True)):
        xid = xids[number % len(xids)]
        gpu = int(site.first_gpu[place]) + int(rng.integers(site.nodes[place].gpu_count))
        at = start + timedelta(seconds=second)
        found.append(Fault(kinds[xid], site.gpu_id(gpu), at=at, xid=xid))
    return tuple(found)
