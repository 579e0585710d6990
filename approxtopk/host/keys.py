"""How elements compare: one total order for every dtype and direction, as integer costs and as a fast filter.

A *cost* is an unsigned integer of the element's width: the best element costs least, equal elements cost the same.
Costs decide everything. Computing them takes six passes over the data, though, so where NumPy's own comparison
can be trusted as a *filter* (keep all that may be good enough), the elements are compared as they are: those
views are called *scores*. Floats are trusted no further than holds in a thread with FTZ/DAZ set, such as JAX's
callback threads, where every subnormal compares as zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dtypes import DType

__all__ = ["Array", "Mask", "Order"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class Order:
    """The order of one dtype in one direction.

    Parameters
    ----------
    dtype : DType
        The elements' type.
    largest : bool
        Whether large values are good (NaN best) or small ones (NaN worst).
    """

    def __init__(self, dtype: DType, largest: bool) -> None:
        self.largest = largest
        self.kind = dtype.kind
        self.bits = dtype.bits
        self.unsigned = np.dtype(f"u{dtype.itemsize}")
        self.signed = np.dtype(f"i{dtype.itemsize}")
        self.sign = self.unsigned.type(1 << (dtype.bits - 1))
        self.magnitude = self.unsigned.type((1 << (dtype.bits - 1)) - 1)
        # What takes an integer to its cost and back: signed ones lose their sign bit's meaning, large ones cost little.
        flip = (int(self.sign) if dtype.kind == "i" else 0) ^ ((1 << dtype.bits) - 1 if largest else 0)
        self.flip = self.unsigned.type(flip)
        self.largest_number = self.unsigned.type(dtype.largest_number)
        self.nan_cost = 0 if largest else (1 << dtype.bits) - 1
        # Bits of an element that none is worse than.
        if dtype.kind != "f":
            self.worst = self.unsigned.type(~flip & (1 << dtype.bits) - 1)
        else:
            self.worst = self.sign | self.largest_number if largest else self.magnitude
        # The type NumPy compares these elements in; half and narrower floats are compared by cost.
        native = dtype.kind != "f" or dtype.bits >= 32
        self.native: np.dtype[Any] | None = np.dtype(f"{dtype.kind}{dtype.itemsize}") if native else None
        self.floating = native and dtype.kind == "f"
        if self.native is not None and self.floating:
            self.least_normal = np.finfo(self.native).smallest_normal
            self.subnormal = self.unsigned.type(int(self.least_normal.reshape(1).view(self.unsigned)[0]) - 1)
            self.zero_cost = int(self.magnitude) if largest else int(self.sign)
        if self.native is None or not largest:
            # fmin passes over NaN, which is the worst there is; maximum takes it along.
            self.better: np.ufunc = np.fmin if self.floating else np.minimum
        else:
            self.better = np.maximum

    def costs(self, bits: Array) -> Array:
        """Costs of elements: unsigned integers, same shape, new memory."""
        cost: Array
        if self.kind != "f":
            cost = np.bitwise_xor(bits, self.flip)
            return cost
        # With s = -1 for negative elements and 0 for others, (bits ^ (s | sign)) - s is the value counted from
        # sign: bits + sign for those with no sign, sign - magnitude for negative ones, and both zeros meet.
        s = np.right_shift(bits.view(self.signed), self.bits - 1).view(self.unsigned)
        cost = np.bitwise_or(s, self.sign)
        np.bitwise_xor(cost, bits, out=cost)
        np.subtract(cost, s, out=cost)
        if self.largest:
            np.invert(cost, out=cost)
        np.bitwise_and(bits, self.magnitude, out=s)
        nan = np.greater(s, self.largest_number)
        if nan.any():
            cost[nan] = self.nan_cost
        return cost

    def elements(self, costs: Array) -> Array:
        """Bits of an element of each cost; costs that only NaN has, or none, give a NaN."""
        bits: Array
        if self.kind != "f":
            bits = np.bitwise_xor(costs, self.flip)
        else:
            value = np.invert(costs) if self.largest else costs
            bits = np.where(value < self.sign, (self.sign - value) | self.sign, value ^ self.sign)
        return bits

    def scores(self, bits: Array) -> Array:
        """Give what `better` reduces and `passes` compares: the elements themselves where NumPy can, else costs."""
        return self.costs(bits) if self.native is None else bits.view(self.native)

    def costs_of_scores(self, scores: Array) -> Array:
        """Costs of scores that `better` picked; of a float that may be subnormal, the greatest it may have."""
        if self.native is None:
            return scores
        costs = self.costs(scores.view(self.unsigned))
        if self.floating:
            # Neighbouring values are neighbouring costs: those of zero and the subnormals are low to high.
            low, high = (self.unsigned.type(self.zero_cost + d) for d in (-int(self.subnormal), int(self.subnormal)))
            unsure = np.less_equal(costs - low, high - low)
            if unsure.any():
                costs[unsure] = high
        return costs

    def limits(self, costs: Array) -> tuple[Array, Mask | None]:
        """Scores to filter by.

        Parameters
        ----------
        costs : ndarray
            The worst costs wanted.

        Returns
        -------
        limits : ndarray, same shape
            `passes` against these keeps all elements of these costs and better, and perhaps a few worse ones.
        sound : ndarray of bool, same shape, or None
            Where that is so (None: everywhere). It is not where the worst wanted is a NaN.
        """
        if self.native is None:
            return costs, None
        bits = self.elements(costs)
        if not self.floating:
            return bits.view(self.native), None
        # A limit that is subnormal may compare as zero; so does every subnormal then, and they all pass.
        return bits.view(self.native), (bits & self.magnitude) <= self.largest_number

    def passes(self, scores: Array, limits: Array) -> Mask:
        """Where `scores` are `limits` or better (broadcast against each other), with NaN where NaN is best."""
        mask: Mask
        if self.native is None or not self.largest:
            mask = np.less_equal(scores, limits)
        elif not self.floating:
            mask = np.greater_equal(scores, limits)
        else:
            mask = np.less(scores, limits)
            np.logical_not(mask, out=mask)
        return mask

    def passing(self, bits: Array, cost: int) -> Mask:
        """Where elements cost at most `cost`: exactly so, whatever `cost` is."""
        worst = self.unsigned.type(cost)
        if self.floating:
            element = self.elements(np.array([worst]))
            magnitude = element[0] & self.magnitude
            if not self.subnormal < magnitude <= self.largest_number:
                mask: Mask = np.less_equal(self.costs(bits), worst)
                return mask
        limit, _ = self.limits(np.array([worst]))
        return self.passes(self.scores(bits), limit[0])
