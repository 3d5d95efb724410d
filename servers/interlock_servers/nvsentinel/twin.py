"""NVSentinel over the plant: its modules as controllers that write through a Kubernetes API.

It shares nothing with the code that reads NVSentinel's objects, and goes wrong on request.
"""

from dataclasses import dataclass

from interlock_plant.plant import Plant
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster
from interlock_servers.nvsentinel.twin_connector import PlatformConnector
from interlock_servers.nvsentinel.twin_events import EventStore, HealthEvent
from interlock_servers.nvsentinel.twin_monitors import Monitors
from interlock_servers.nvsentinel.twin_quarantine import Breaker, FaultQuarantine
from interlock_servers.nvsentinel.twin_stand_ins import StandIns
from interlock_servers.transports.kube.kinds import CONFIG_MAPS, DEPLOYMENTS, LEASES, Kind

WATCHED: tuple[tuple[Kind, str | None], ...] = (
    (CONFIG_MAPS, names.SPACE),
    (DEPLOYMENTS, names.SPACE),
    (LEASES, names.SPACE),
)
