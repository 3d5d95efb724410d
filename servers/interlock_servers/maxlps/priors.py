"""What a class of work draws and loses under a cap, until it has been measured where it runs.

Evidence: [M] measured or computed by us from public data; [P] published; [A] our assumption. Priors
transfer badly between GPU types: re-fit per GPU type, model and phase as soon as there is data.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import DECODE, TRAINING, CurveParameters

CURVE_SOURCE: Final = (
    "MLPerf Inference v4.1, H200, audited MaxQ/MaxP pairs at .50-.71 of TDP [M, P]"
)


class Prior(NamedTuple):
    """One class of work.

    Attributes:
        draw_base: share of TDP drawn at u = 0.
        draw_slope: further share at u = 1; u in [0, 1] is throughput over the replica's greatest.
        curve: `p0` and `gamma` of its throughput under a cap.
        source: of the draw; that of the curve is `CURVE_SOURCE`.
    """

    draw_base: float
    draw_slope: float
    curve: CurveParameters
    source: str

    @property
    def p0(self) -> float:
        """Share of natural draw that buys no work."""
        return self.curve.p0

    @property
    def gamma(self) -> float:
        """Concavity of its throughput under a cap."""
        return self.curve.gamma

    @property
    def natural_share(self) -> float:
        """Uncapped draw at full load as a share of TDP; full load is the safe assumption."""
        return self.share_at(1.0)

    def share_at(self, u: float) -> float:
        """Uncapped draw at load `u` as a share of TDP.

        Raises:
            InvalidRequestError: `u` is not in [0, 1].
        """
        if not 0.0 <= u <= 1.0:
            raise InvalidRequestError(f"u must be in [0, 1], not {u}")
        return self.draw_base + self.draw_slope * u


PRIORS: Final[Mapping[str, Prior]] = MappingProxyType(
    {
        "train": Prior(
            0.90,
            0.0,
            TRAINING,
            "H100 .90 [A, from a mean of 76 % of node rating]; a full B300 step .954 [P, n=1]",
        ),
        "prefill": Prior(
            0.95,
            0.0,
            TRAINING,
            "between B300 prefill, .98 of its limit [P, n=1], and p90 of H100 runs, .90 [M]: [A]",
        ),
        "batch": Prior(
            0.95,
            0.0,
            TRAINING,
            "keeps the replica full: p90 of H100 runs .90, of B200 runs .95 [M]; the higher [A]",
        ),
        "serving": Prior(
            0.590,
            0.284,
            DECODE,
            "28 H100 configurations, median R2 .95; p10-p90 of the base .52-.69 [M]",
        ),
        "dev": Prior(
            0.45,
            0.0,
            TRAINING,
            "mixed research fleet, A100: mean .42-.48 of TDP, p95 1.03: a mean, not a bound [M]",
        ),
        "burn": Prior(1.0, 0.0, TRAINING, "burn-in draws the full rating [A]"),
        "idle": Prior(0.1036, 0.0, TRAINING, "H100 72.5 W of 700 W [P]; no work to lose"),
    }
)

# Work that nobody has named: it may draw everything, and loses as much as the worst of the known.
UNKNOWN: Final = Prior(1.0, 0.0, DECODE, "unknown work is taken to draw its full rating [A]")


SYNCHRONOUS: Final = frozenset({"train"})  # every step ends with all of its GPUs


def is_synchronous(workload_class: str | None) -> bool:
    """Whether the GPUs of one job of this class wait for each other."""
    return (workload_class or "").casefold() in SYNCHRONOUS


def prior_of(workload_class: str | None) -> Prior:
    """The prior of a class of work; of one that is not known, the careful one."""
    return PRIORS.get((workload_class or "").casefold(), UNKNOWN)
