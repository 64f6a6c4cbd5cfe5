"""TPU slices, spelled as `prompt-tuning plan --topology=` spells them, and their names in Google's interfaces."""

import dataclasses
import math

from prompt_tuning.commands.plan.generations import Generation, generation_of, sizes_of
from prompt_tuning.errors import ConfigError

_CHIPS_A_VM_OF_MANY = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of TPU chips.

    Args:
      topology: The name that `prompt-tuning plan` knows it by, such as `v5e:2x4`.
    """

    topology: str

    @property
    def generation(self) -> Generation:
        """What holds for the whole generation."""
        return generation_of(self.topology)

    @property
    def shape(self) -> str:
        """Chips in each dimension, such as `2x4`."""
        return self.topology.partition(":")[2]

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(sizes_of(self.topology))

    @property
    def chips_a_vm(self) -> int:
        """Chips of one VM of the slice."""
        return self.chips if self.chips in self.generation.single_host else _CHIPS_A_VM_OF_MANY

    @property
    def vms(self) -> int:
        """VMs of the slice on Compute Engine and GKE."""
        return self.chips // self.chips_a_vm

    @property
    def machine_type(self) -> str:
        """Compute Engine's and GKE's machine type of one VM, such as `ct6e-standard-4t`.

        Raises:
          ConfigError: If there is none.
        """
        if not self.generation.machine_type:
            raise ConfigError(
                "Compute Engine and GKE do not offer this TPU",
                got=self.topology,
                expected="v4 or newer",
                fix="launch it as docs/machines/sky.md says",
            )
        return f"{self.generation.machine_type}-{self.chips_a_vm}t"


def parse(text: str) -> Slice:
    """Reads a slice.

    Args:
      text: A generation and a shape, such as `v5e:2x4`.

    Returns:
      The slice.

    Raises:
      ConfigError: If the generation is unknown or the shape has another form.
    """
    generation, found = generation_of(text), Slice(text)
    if found.shape.count("x") not in {layout.count("x") for layout in generation.layouts}:
        raise ConfigError(
            "A TPU topology has another shape",
            got=text,
            expected=f"numbers of chips joined by x, such as {', '.join(generation.slices)}",
            fix="write the shape of a slice that Google offers",
        )
    if found.chips not in generation.single_host and found.chips % _CHIPS_A_VM_OF_MANY:
        raise ConfigError(
            "No VM has this number of chips",
            got=text,
            expected=f"{', '.join(map(str, generation.single_host))} chips, or a multiple of four",
            fix="write the shape of a slice that Google offers",
        )
    return found
