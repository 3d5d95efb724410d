"""The simulated factory: fixed-step, seeded, vectorised. It knows no component and no protocol."""

from interlock_plant.faults import Fault, FaultKind
from interlock_plant.grid import GridEvent
from interlock_plant.halls import hall_site, lab_site
from interlock_plant.jobs import Job, hall_jobs, jobs_of, lab_jobs
from interlock_plant.lifecycle import JobRequest, Phase
from interlock_plant.load import Load, SteadyLoad, SyntheticLoad, TraceLoad
from interlock_plant.parameters import JobClass
from interlock_plant.plant import Plant, Snapshot
from interlock_plant.power import Channel
from interlock_plant.random_faults import random_faults
from interlock_plant.scenario import Scenario, parse_scenario
from interlock_plant.score import Score
from interlock_plant.site import Cdu, Feed, Node, Pdu, Rack, SiteSpec, Storage, Ups
from interlock_plant.site_file import parse_site, shipped_site
from interlock_plant.storms import xid_storm
from interlock_plant.swing import MeasuredLoad, SquareLoad
from interlock_plant.trace import RequestTrace, parse_trace

__all__ = [
    "Cdu",
    "Channel",
    "Fault",
    "FaultKind",
    "Feed",
    "GridEvent",
    "Job",
    "JobClass",
    "JobRequest",
    "Load",
    "MeasuredLoad",
    "Node",
    "Pdu",
    "Phase",
    "Plant",
    "Rack",
    "RequestTrace",
    "Scenario",
    "Score",
    "SiteSpec",
    "Snapshot",
    "SquareLoad",
    "SteadyLoad",
    "Storage",
    "SyntheticLoad",
    "TraceLoad",
    "Ups",
    "hall_jobs",
    "hall_site",
    "jobs_of",
    "lab_jobs",
    "lab_site",
    "parse_scenario",
    "parse_site",
    "parse_trace",
    "random_faults",
    "shipped_site",
    "xid_storm",
]
