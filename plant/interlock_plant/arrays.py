"""Array types and the two array idioms that every part of the plant shares."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Array = TypeVar("Array", bound=NDArray[Any])


def sum_by(index: Ints, values: Floats, count: int) -> Floats:
    """Sum of `values` per parent: `index[i]` is the parent of child i, of `count` parents."""
    return np.bincount(index, weights=values, minlength=count).astype(np.float64, copy=False)


def read_only(values: Array) -> Array:
    """A view of `values` that the caller cannot write through."""
    view = values.view()
    view.flags.writeable = False
    return view
