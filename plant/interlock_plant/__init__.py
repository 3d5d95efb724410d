"""The simulated factory: fixed-step, seeded, vectorised. It knows no component and no protocol."""

from interlock_plant.faults import Fault, FaultKind
from interlock_plant.halls import hall_site, lab_site
from interlock_plant.jobs import Job, hall_jobs, lab_jobs
from interlock_plant.load import Load, SteadyLoad, SyntheticLoad, TraceLoad
from interlock_plant.parameters import JobClass
from interlock_plant.plant import Plant, Snapshot
from interlock_plant.score import Score
from interlock_plant.site import Cdu, Feed, Node, Pdu, Rack, SiteSpec
from interlock_plant.trace import RequestTrace, parse_trace

__all__ = [
    "Cdu",
    "Fault",
    "FaultKind",
    "Feed",
    "Job",
    "JobClass",
    "Load",
    "Node",
    "Pdu",
    "Plant",
    "Rack",
    "RequestTrace",
    "Score",
    "SiteSpec",
    "Snapshot",
    "SteadyLoad",
    "SyntheticLoad",
    "TraceLoad",
    "hall_jobs",
    "hall_site",
    "lab_jobs",
    "lab_site",
    "parse_trace",
]
