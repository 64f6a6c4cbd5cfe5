"""What a method added to a model, as one value: parameters layer by layer, and what they belong to."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class MethodSet:
    """The parameters that a method added, after some training.

    Attributes:
      params: Path in the unscanned layout -> float32 array.
      info: What is recorded of them; under `METHOD` the method's name and settings (`Method.describe`), where known.
      absent: What parameters that are not there consist of; None where all have to be there.
      spare: Whether there may be parameters of layers that the model has not.
    """

    params: Mapping[str, np.ndarray]
    info: Mapping[str, Any]
    absent: float | None = None
    spare: bool = False


# What a run leaves of one in MODEL_DIR, in the folder of each step that was saved.
METHOD_FILE = "method.safetensors"
# In what a run records, and in `MethodSet.info`.
METHOD = "method"
# In what is recorded in a file of a set: its `absent`.
ABSENT = "absent"
