"""What a method's parameters at one linear map make of its kernel: rows and columns scaled, and a product added."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class KernelChange:
    """The kernel W [inputs, outputs] becomes `rows[:, None] * W * columns + left @ right`; None is nothing.

    Attributes:
      rows: A factor for each input.
      columns: A factor for each output.
      left: [inputs, r] float32, with `right` [r, outputs].
      right: See `left`.
    """

    rows: Float[np.ndarray, " inputs"] | None = None
    columns: Float[np.ndarray, " outputs"] | None = None
    left: Float[np.ndarray, "inputs r"] | None = None
    right: Float[np.ndarray, "r outputs"] | None = None

    def misfit(self, inputs: int, outputs: int) -> tuple[str, str] | None:
        """Returns what does not fit a kernel of these widths, and what would; None if all does."""
        for factors, width in ((self.rows, inputs), (self.columns, outputs)):
            if factors is not None and factors.size != width:
                return f"{factors.size} of them", f"{width} factors"
        if self.left is not None and self.right is not None:
            widths = [self.left.shape[0], self.right.shape[1]]
            if widths != [inputs, outputs] or self.left.shape[1] != self.right.shape[0]:
                return f"{[*self.left.shape]} times {[*self.right.shape]}", f"{[inputs, outputs]}"
        return None

    def of_part(
        self,
        part: Float[np.ndarray, "..."],
        shape: tuple[int, ...],
        num_inputs: int,
        index: tuple[slice, ...],
    ) -> Float[np.ndarray, "..."]:
        """Returns what a part of a kernel becomes.

        Args:
          part: The part, float32.
          shape: Of the whole kernel, whose inputs and outputs may have several axes each.
          num_inputs: How many of its axes are inputs.
          index: Where the part is.
        """
        inputs, outputs = shape[:num_inputs], shape[num_inputs:]
        of_inputs, of_outputs = index[:num_inputs], index[num_inputs:]
        if self.rows is not None:
            rows = self.rows.reshape(inputs)[of_inputs]
            part = part * rows.reshape(rows.shape + (1,) * len(outputs))
        if self.columns is not None:
            part = part * self.columns.reshape(outputs)[of_outputs]
        if self.left is not None and self.right is not None:
            rank = self.left.shape[1]
            left = self.left.reshape(*inputs, rank)[of_inputs].reshape(-1, rank)
            right = self.right.reshape(rank, *outputs)[(slice(None), *of_outputs)]
            product = left @ right.reshape(rank, math.prod(right.shape[1:]))
            part = part + product.reshape(part.shape)
        return part
