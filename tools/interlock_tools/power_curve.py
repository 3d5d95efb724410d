"""Relative throughput against a power cap: the one curve that plant and allocator both speak.

    T(c) = clip(((c/D - p0) / (1 - p0)), 0, 1) ** gamma      for 0.5 <= c/D <= 1;  T = 1 for c >= D

`D` is the natural (uncapped) draw of this GPU on this work, in watts. The form was fitted to public
cap sweeps (Zeus, NSDI'23) and to MLPerf Inference v4.1 MaxQ/MaxP pairs. It is never to be
extrapolated below half of the natural draw: below that, pause the work instead.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FLOOR_RATIO = 0.5  # of natural draw: the curve says nothing below it

Watts = NDArray[np.float64]
Ratio = NDArray[np.float64]


class CurveParameters(NamedTuple):
    """`p0` (share of natural draw that buys no work) and `gamma` (concavity), both in [0, 1)."""

    p0: float
    gamma: float


# MLPerf Inference v4.1, H200 SXM, whole-system audited power: three LLM models each.
TRAINING = CurveParameters(p0=0.0, gamma=0.61)  # also prefill and offline inference
DECODE = CurveParameters(p0=0.0, gamma=0.70)  # latency-bound serving


def throughput(cap_w: ArrayLike, natural_w: ArrayLike, p0: ArrayLike, gamma: ArrayLike) -> Ratio:
    """Relative useful throughput in [0, 1] at `cap_w` watts; elementwise, broadcasting."""
    ratio = np.asarray(cap_w, dtype=np.float64) / np.asarray(natural_w, dtype=np.float64)
    p0 = np.asarray(p0, dtype=np.float64)
    share = np.clip((ratio - p0) / (1.0 - p0), 0.0, 1.0)
    work: Ratio = np.power(share, np.asarray(gamma, dtype=np.float64))
    return work


def cap_for(work: ArrayLike, natural_w: ArrayLike, p0: ArrayLike, gamma: ArrayLike) -> Watts:
    """The least cap in watts that keeps relative throughput `work` in [0, 1]; elementwise."""
    p0 = np.asarray(p0, dtype=np.float64)
    share = np.asarray(work, dtype=np.float64) ** (1.0 / np.asarray(gamma, dtype=np.float64))
    return np.asarray(natural_w, dtype=np.float64) * (p0 + (1.0 - p0) * share)
