"""What power sensors show of a waveform: a sample of 25 ms in each 100 ms, or a counter's average.

A sample sees the last part of its window and says nothing of the rest; the counter averages about
a second, and so flattens every swing that is faster than two.
"""

import numpy as np

from interlock_plant.arrays import Floats, Ints
from interlock_plant.parameters import COUNTER_WINDOW_S, SENSE_EVERY_S, SENSE_WINDOW_S
from interlock_tools.errors import InvalidRequestError


def sampled_w(waveform_w: Floats, step_s: float, *, phase_s: float = 0.0) -> Floats:
    """Readings every 100 ms: each the mean of 25 ms ([P]).

    Args:
        waveform_w: power, one entry each `step_s`.
        step_s: at most 25 ms.
        phase_s: when the first window begins, in [0, .1).

    Raises:
        InvalidRequestError: the waveform is too coarse or shorter than one window.
    """
    if not 0 < step_s <= SENSE_WINDOW_S:
        raise InvalidRequestError(f"step_s must be in (0, {SENSE_WINDOW_S}], not {step_s}")
    window, every = round(SENSE_WINDOW_S / step_s), round(SENSE_EVERY_S / step_s)
    first = round(phase_s / step_s)
    starts = np.arange(first, len(waveform_w) - window + 1, every)
    if not starts.size:
        raise InvalidRequestError("the waveform is shorter than one window of the sensor")
    return _means(waveform_w, starts, window)


def averaged_w(waveform_w: Floats, step_s: float) -> Floats:
    """The averaged counter at every step: the mean of the second before it ([P]).

    Raises:
        InvalidRequestError: the waveform is shorter than a second.
    """
    window = round(COUNTER_WINDOW_S / step_s)
    if window < 1 or len(waveform_w) < window:
        raise InvalidRequestError("the waveform is shorter than the counter's window")
    return _means(waveform_w, np.arange(len(waveform_w) - window + 1), window)


def square_w(
    low_w: float, high_w: float, period_s: float, *, seconds: float, step_s: float
) -> Floats:
    """A training step's square wave, half of each period at each level (POLCA, [P])."""
    time_s = (np.arange(round(seconds / step_s)) + 0.5) * step_s
    return np.where((time_s / period_s) % 1.0 < 0.5, high_w, low_w)


def _means(values: Floats, starts: Ints, window: int) -> Floats:
    total = np.concatenate([np.zeros(1), np.cumsum(values)])
    means: Floats = (total[starts + window] - total[starts]) / window
    return means
