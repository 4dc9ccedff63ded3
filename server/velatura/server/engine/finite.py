"""Whether arrays hold only finite numbers, at about the price of one pass over memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# For larger arrays the BLAS may wake threads of its own.
_SMALL = 8192


def is_finite(array: NDArray[Any]) -> bool:
    """False where a floating-point `array` of any shape has a NaN or an infinity; integers are
    always finite.
    """
    if array.dtype.kind != "f":
        return True
    # They survive a product with itself, too: for few numbers that takes a third of the time.
    small = array.size <= _SMALL and array.dtype != np.float16
    if small and math.isfinite(np.vdot(array, array)):
        return True
    # NaN and infinity survive a sum, so a finite sum proves all finite, with no temporary array of
    # flags. The sum itself may overflow: only then does every number get a look.
    with np.errstate(all="ignore"):
        total = array.sum(dtype=np.float64 if array.dtype == np.float64 else np.float32)
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())
