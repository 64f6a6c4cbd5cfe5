"""The settings of checkpoints: what a run starts from, when it saves, and how many it keeps."""

import dataclasses

from prompt_tuning.errors import ConfigError, check_choice, check_count

RESTORE_MODES = ("specific", "latest")
# In what frozen weights may be held.
DTYPES = ("float32", "bfloat16", "int8")


@dataclasses.dataclass(frozen=True)
class RestoreCheckpointConfig:
    """Where weights come from.

    Attributes:
      path: A checkpoint, or with `mode="latest"` the folder that holds `checkpoint_{step}`. None: nothing to restore.
      mode: `specific` (`path` is the checkpoint) or `latest` (`path` is the folder of several).
      dtype: In what the frozen weights are held: `float32`, `bfloat16`, or `int8` (kernels as int8 with a scale for
        each output channel, everything else in bfloat16).
    """

    path: str | None = None
    mode: str = "specific"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Checks the choices."""
        check_choice("utils.RestoreCheckpointConfig.mode", self.mode, RESTORE_MODES)
        check_choice("utils.RestoreCheckpointConfig.dtype", self.dtype, DTYPES)


@dataclasses.dataclass(frozen=True)
class SaveCheckpointConfig:
    """When this run saves.

    Attributes:
      period: Steps between saves; the last step is saved too.
      keep: Newest checkpoints kept, the best one aside. None keeps all.
    """

    period: int = 1000
    keep: int | None = 1

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_count("utils.SaveCheckpointConfig.period", self.period, "steps")
        check_count("utils.SaveCheckpointConfig.keep", self.keep, "checkpoints", none_means="all")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Where a training run starts from and when it saves.

    Attributes:
      restore: The initial weights; None, as T5X users write it, means none (`path=None`).
      save: When to save.
    """

    restore: RestoreCheckpointConfig = RestoreCheckpointConfig()
    save: SaveCheckpointConfig = SaveCheckpointConfig()

    def __post_init__(self) -> None:
        """Replaces T5X's `restore = None` by a config without a path, and refuses a run that never saves."""
        if self.restore is None:
            object.__setattr__(self, "restore", RestoreCheckpointConfig())
        if self.save is None:
            raise ConfigError(
                "utils.CheckpointConfig.save is not set",
                got=None,
                expected="@utils.SaveCheckpointConfig()",
                fix="leave the binding out and set utils.SaveCheckpointConfig.period instead",
            )
