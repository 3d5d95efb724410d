"""Everything of a plant that changes, in one place: a deep copy of it is a snapshot."""

from dataclasses import dataclass

import numpy as np

from interlock_plant.arrays import Floats
from interlock_plant.electrical import ElectricalState
from interlock_plant.faults import FaultState
from interlock_plant.grid import GridState
from interlock_plant.lifecycle import LifeState
from interlock_plant.power import PowerState
from interlock_plant.score import ScoreState
from interlock_plant.thermal import CoolingState


@dataclass
class PlantState:
    """Everything that changes; a deep copy of it is a snapshot."""

    second: int
    rng: np.random.Generator  # of command delays
    load_u: Floats  # per job of the roster, with one more entry for idle GPUs
    job_work: Floats
    backlog_s: Floats
    site_limit_w: float | None
    life: LifeState
    grid: GridState
    power: PowerState
    cooling: CoolingState
    electrical: ElectricalState
    faults: FaultState
    score: ScoreState
