"""Small settings of a run that belong to no other module; plain dataclasses, usable without gin."""

import dataclasses

from prompt_tuning.errors import ConfigError
from prompt_tuning.training.optimizers import Adafactor
from prompt_tuning.types import Schedule

RESTORE_MODES = ("specific", "latest")
DTYPES = ("float32", "bfloat16", "int8")


def join_path(folder: str, name: str) -> str:
    """Returns the path of a file or folder below another; for gin, which cannot join texts.

    Args:
      folder: Local or in an object store.
      name: What is below it, with `/` between parts.
    """
    return f"{folder.rstrip('/')}/{name}"


def _check_positive(name: str, value: int | None, unit: str, or_none: str = ", or None") -> None:
    """Raises ConfigError unless `value` is a whole number of at least 1 (or None, where `or_none` says so)."""
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{name} is not a number of {unit}",
            got=value,
            expected=f"a whole number of {unit} >= 1{or_none}",
            fix=f"bind {name} to such a number",
        )


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
        for name, value, allowed in (
            ("mode", self.mode, RESTORE_MODES),
            ("dtype", self.dtype, DTYPES),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"utils.RestoreCheckpointConfig.{name} is unknown",
                    got=value,
                    expected=f"one of {', '.join(map(repr, allowed))}",
                    fix=f"bind utils.RestoreCheckpointConfig.{name} to one of them",
                    name=str(value),
                    candidates=allowed,
                )


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
        _check_positive("utils.SaveCheckpointConfig.period", self.period, "steps", or_none="")
        _check_positive("utils.SaveCheckpointConfig.keep", self.keep, "checkpoints")


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


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How one step is taken.

    Attributes:
      optimizer: Settings of the optimizer.
      learning_rate_fn: step -> learning rate.
      num_microbatches: Slices of a batch whose gradients are added up before the update; None means the whole batch.
    """

    optimizer: Adafactor
    learning_rate_fn: Schedule
    num_microbatches: int | None = None

    def __post_init__(self) -> None:
        """Checks the number of microbatches."""
        _check_positive("trainer.Trainer.num_microbatches", self.num_microbatches, "slices")


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig:
    """How much is evaluated and written down.

    Attributes:
      num_examples: Examples taken from each task. None: all.
      json_write_n_results: Predictions written per task. None: all; 0: none.
      use_memory_cache: Whether evaluation examples stay in memory between evaluations.
    """

    num_examples: int | None = None
    json_write_n_results: int | None = None
    use_memory_cache: bool = True

    def __post_init__(self) -> None:
        """Checks the numbers."""
        _check_positive("seqio.Evaluator.num_examples", self.num_examples, "examples")
        written = self.json_write_n_results
        if written is None:
            return
        if isinstance(written, bool) or not isinstance(written, int) or written < 0:
            raise ConfigError(
                "JSON_WRITE_N_RESULTS is not a number of predictions",
                got=written,
                expected="a whole number >= 0, or None for all",
                fix="bind JSON_WRITE_N_RESULTS to such a number",
            )
