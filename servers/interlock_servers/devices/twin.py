"""The GPUs of one host of the plant, as their hardware would be, and failing on request.

It speaks no protocol: what is shaped like NVML, AMD SMI or a BMC stands in a file of its own and
asks here. It shares nothing with the code that reads those.
"""

import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from interlock_plant.plant import Plant

REVERTS_AFTER_S = 5
CLAMP_RATIO = 0.9  # of what was asked
LIE_RATIO = 0.25  # of the true draw
HANG_PATIENCE_S = 60.0  # a test that forgot to release it ends all the same
IDLE_SHARE = 0.2  # of the greatest cap: below it nothing runs there
NEAR_CAP = 0.97  # of the cap: the cap loop holds .99 of it


class GpuFault(StrEnum):
    """What a GPU can be told to do wrong."""

    REFUSES = "refuses"  # says no to a limit
    NO_PERMISSION = "no_permission"  # says that we are not root
    IGNORES = "ignores"  # says yes to a limit and keeps the old one
    CLAMPS = "clamps"  # says yes and takes less
    REVERTS = "reverts"  # takes it, and after some seconds has its default again
    LIES_ABOUT_LIMIT = "lies_about_limit"  # shows the limit and does not follow it
    LIES_ABOUT_POWER = "lies_about_power"  # shows a quarter of its draw; its energy counter is true
    HANGS = "hangs"  # does not answer until released
    BREAKS = "breaks"  # fails as no library should
    LOST = "lost"  # has fallen off the bus
    LOST_ONCE_SET = "lost_once_set"  # takes a limit and falls off the bus
    NO_RANGE = "no_range"  # does not tell its least and greatest limit
    NO_COUNTERS = "no_counters"  # has no violation counters and no averages
    LINK_DOWN = "link_down"  # one of its links to other GPUs is down
    SYNC_BOOST = "sync_boost"  # held by the slowest of its group
    RELIABILITY = "reliability"  # held by its voltage's reliability limit
    ROW_REMAP_FAILED = "row_remap_failed"


@dataclass(frozen=True, slots=True)
class RawGpu:
    """One GPU now, in watts, joules, seconds and degrees."""

    cap_set_w: float
    cap_min_w: float
    cap_max_w: float
    bmc_cap_w: float | None
    power_w: float
    instant_w: float
    energy_j: float
    core_c: float
    memory_c: float
    is_lit: bool
    is_idle: bool
    is_capped: bool
    is_braked: bool
    is_hot: bool


class HostTwin:
    """The GPUs of one node of a plant.

    Attributes:
        commands: how often each GPU was told a limit.
        profiles: workload power profiles asked for and in force; None where it has none.
    """

    def __init__(self, plant: Plant, node_id: str) -> None:
        self.plant = plant
        self.node_id = node_id
        self.gpus = [int(gpu) for gpu in plant.site.gpus_of_node(node_id)]
        self.commands = [0] * len(self.gpus)
        self.profiles: tuple[tuple[int, ...] | None, tuple[int, ...] | None] = (None, None)
        self._faults: dict[tuple[int, GpuFault], bool] = {}
        self._released = threading.Event()
        self._since_s = plant.second
        self._held_s: list[defaultdict[str, float]] = [defaultdict(float) for _ in self.gpus]
        self._reverts_at: dict[int, int] = {}
        self._bmc_cap_w: dict[int, float] = {}
        self._xids: list[deque[int]] = [deque() for _ in self.gpus]
        self._ecc = [[0, 0] for _ in self.gpus]
        self._shown_w: dict[int, float] = {}
        self._seen: tuple[int, list[RawGpu]] | None = None

    # ── on request ────────────────────────────────────────────────────────────────────────────

    def inject(self, fault: GpuFault, gpus: Iterable[int] | None = None) -> None:
        """Let some GPUs, or all, go wrong from now on."""
        for gpu in range(len(self.gpus)) if gpus is None else gpus:
            self._faults[gpu, fault] = True
        self._seen = None
        if fault is GpuFault.HANGS:
            self._released.clear()

    def repair(self, fault: GpuFault) -> None:
        """End a fault on every GPU; whoever hangs in it goes on."""
        self._faults = {key: on for key, on in self._faults.items() if key[1] is not fault}
        self._seen = None
        if fault is GpuFault.HANGS:
            self._released.set()

    def has(self, gpu: int, fault: GpuFault) -> bool:
        """Whether this GPU has this fault now."""
        return (gpu, fault) in self._faults

    def raise_xid(self, gpu: int, code: int) -> None:
        """Let its driver report an error, once."""
        self._xids[gpu].append(code)

    def add_ecc(self, gpu: int, *, corrected: int = 0, uncorrected: int = 0) -> None:
        """Let it count memory errors."""
        self._ecc[gpu][0] += corrected
        self._ecc[gpu][1] += uncorrected

    def cap_by_bmc(self, gpu: int, limit_w: float | None) -> None:
        """Limit it out of band, which in-band calls do not show as their own limit."""
        self._shown_w.setdefault(gpu, self.raw(gpu).cap_set_w)
        self._bmc_cap_w.pop(gpu, None)
        if limit_w is not None:
            self._bmc_cap_w[gpu] = limit_w
        self._follow(gpu)
        self._seen = None

    # ── the hardware ──────────────────────────────────────────────────────────────────────────

    def wait_if_hung(self, gpu: int) -> None:
        """Block while the GPU hangs."""
        if self.has(gpu, GpuFault.HANGS):
            self._released.wait(HANG_PATIENCE_S)

    def raw(self, gpu: int) -> RawGpu:
        """What it is now."""
        if self.has(gpu, GpuFault.BREAKS):
            raise RuntimeError("the twin was told to break")
        plant = self.plant
        self._let_time_pass()
        if self._seen is None or self._seen[0] != plant.second:
            self._seen = (plant.second, self._look())
        return self._seen[1][gpu]

    def held_s(self, gpu: int, by: str) -> float:
        """How long something has held its clocks: `cap`, `heat`, `brake`, `sync`, `reliability`."""
        self._let_time_pass()
        return self._held_s[gpu][by]

    def take_xid(self, gpu: int) -> int | None:
        """The next error that was not told yet."""
        return self._xids[gpu].popleft() if self._xids[gpu] else None

    def ecc(self, gpu: int) -> tuple[int, int]:
        """Corrected and uncorrected errors."""
        return self._ecc[gpu][0], self._ecc[gpu][1]

    def set_limit_w(self, gpu: int, limit_w: float) -> None:
        """Take a limit that lies in its range, or do with it what its faults say."""
        self.commands[gpu] += 1
        self._let_time_pass()
        if self.has(gpu, GpuFault.IGNORES):
            return
        raw = self.raw(gpu)
        if self.has(gpu, GpuFault.CLAMPS):
            limit_w = max(raw.cap_min_w, CLAMP_RATIO * limit_w)
        if self.has(gpu, GpuFault.REVERTS):
            self._reverts_at[gpu] = self.plant.second + REVERTS_AFTER_S
        self._shown_w[gpu] = limit_w
        if not self.has(gpu, GpuFault.LIES_ABOUT_LIMIT):
            self._follow(gpu)
        if self.has(gpu, GpuFault.LOST_ONCE_SET):
            self.inject(GpuFault.LOST, [gpu])
        self._seen = None

    def _follow(self, gpu: int) -> None:
        """Let the plant follow the lower of what was set in band and out of band."""
        shown_w = self._shown_w.get(gpu, float(self.plant.gpu_cap_set_w[self.gpus[gpu]]))
        bmc_w = self._bmc_cap_w.get(gpu)
        self.plant.command_caps([self.gpus[gpu]], shown_w if bmc_w is None else min(shown_w, bmc_w))
        if bmc_w is None:
            self._shown_w.pop(gpu, None)  # the plant's own is what it shows, whoever sets it next
        else:
            self._shown_w[gpu] = shown_w

    def _let_time_pass(self) -> None:
        """Count what held since the last look, and let limits revert that are due."""
        plant = self.plant
        if plant.second == self._since_s:
            return
        passed_s = float(plant.second - self._since_s)
        self._since_s = plant.second
        for gpu, raw in enumerate(self._look()):
            held = {
                "cap": raw.is_capped,
                "heat": raw.is_hot,
                "brake": raw.is_braked,
                "sync": self.has(gpu, GpuFault.SYNC_BOOST),
                "reliability": self.has(gpu, GpuFault.RELIABILITY),
            }
            if not raw.is_lit:
                self._shown_w.pop(gpu, None)  # without power it forgets its limit
            for by, is_held in held.items():
                self._held_s[gpu][by] += passed_s if is_held else 0.0
        for gpu in [gpu for gpu, at_s in self._reverts_at.items() if at_s <= plant.second]:
            del self._reverts_at[gpu]
            self._shown_w[gpu] = plant.site.gpu.cap_max_w
            self._follow(gpu)
        self._seen = None

    def _look(self) -> list[RawGpu]:
        """Every GPU of the node at this second."""
        plant, site = self.plant, self.plant.site.gpu
        here = slice(self.gpus[0], self.gpus[-1] + 1)
        columns = zip(
            plant.gpu_power_w[here].tolist(),
            plant.gpu_sampled_w[here].tolist(),
            plant.gpu_energy_j[here].tolist(),
            plant.gpu_cap_set_w[here].tolist(),
            plant.gpu_cap_effective_w[here].tolist(),
            plant.natural_w[here].tolist(),
            plant.gpu_core_c[here].tolist(),
            plant.gpu_hbm_c[here].tolist(),
            plant.gpu_is_lit[here].tolist(),
            plant.gpu_is_braked[here].tolist(),
            plant.gpu_is_throttled[here].tolist(),
            strict=True,
        )
        found = []
        for gpu, column in enumerate(columns):
            power_w, instant_w, energy_j, set_w, follows_w, natural_w = column[:6]
            core_c, memory_c, is_lit, is_braked, is_hot = column[6:]
            lie = LIE_RATIO if self.has(gpu, GpuFault.LIES_ABOUT_POWER) else 1.0
            found.append(
                RawGpu(
                    cap_set_w=self._shown_w.get(gpu, set_w),
                    cap_min_w=site.cap_min_w,
                    cap_max_w=site.cap_max_w,
                    bmc_cap_w=self._bmc_cap_w.get(gpu),
                    power_w=power_w * lie,
                    instant_w=instant_w * lie,
                    energy_j=energy_j,
                    core_c=core_c,
                    memory_c=memory_c,
                    is_lit=is_lit and not self.has(gpu, GpuFault.LOST),
                    is_idle=natural_w < IDLE_SHARE * site.cap_max_w,
                    is_capped=natural_w > follows_w and power_w > NEAR_CAP * follows_w,
                    is_braked=is_braked,
                    is_hot=is_hot,
                )
            )
        return found
