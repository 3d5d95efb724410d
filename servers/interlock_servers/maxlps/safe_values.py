"""Whether all nodes at their safe values fit every budget: that is where they go without us."""

from collections.abc import Mapping

import numpy as np

from interlock_servers.maxlps.models import Topology
from interlock_servers.maxlps.node_settings import NodePowerSettings
from interlock_servers.maxlps.node_view import HOST


def unsafe_domains(
    settings: NodePowerSettings, topology: Topology, gpus_by_node: Mapping[str, int]
) -> dict[str, float]:
    """The domains whose budget the safe values would break, with the watts that are too many.

    A node that shows no GPUs counts with as many as the settings say, or as the largest shows.
    """
    most = settings.gpus_per_node or max(gpus_by_node.values(), default=0)
    fixed_w = float(np.asarray(HOST.fixed_w))
    nodes = frozenset(topology.node_ids)
    found: dict[str, float] = {}
    for domain in topology.root.walk():
        if domain.budget_w is None:
            continue
        node_ids = [one.name for one in domain.walk() if one.name in nodes]
        load_w = sum(
            fixed_w
            + HOST.slope
            * gpus_by_node.get(node_id, most)
            * settings.safe_w_by_node.get(node_id, settings.safe_w)
            for node_id in node_ids
        )
        if load_w > domain.budget_w:
            found[domain.name] = load_w - domain.budget_w
    return found
