"""A sweep, as a gin file describes it, and its cells."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.config import flags as gin_flags
from prompt_tuning.errors import ConfigError

SELECTOR = "prompt_tuning.sweeps.Sweep"
# What a cell does: trains, is evaluated only, or only has its parameters counted.
COMMANDS = ("train", "eval", "count")
ENSEMBLE = "ensemble"
# Files of `configs/paper/scales/`.
SCALES = ("full", "mini", "t5gemma")
# Macro that holds the output folder of a command; its value is no setting of the run.
OUTPUT_MACROS = {"train": "MODEL_DIR", "eval": "EVAL_OUTPUT_DIR"}
# Parts of an axis value: what each has to be, as a check and in words. An evaluation has the first two alone.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "gin_files": (
        lambda item: isinstance(item, (list, tuple)) and all(isinstance(f, str) for f in item),
        "a list of gin files",
    ),
    "bindings": (
        lambda item: isinstance(item, Mapping) and all(isinstance(name, str) for name in item),
        "name -> value, such as {'BATCH_SIZE': 8}",
    ),
    "command": (lambda item: item in COMMANDS, str(COMMANDS)),
    "evaluations": (lambda item: isinstance(item, Mapping), "name -> gin_files, bindings"),
}
_CHANGE_PARTS = ("gin_files", "bindings")


# A setting as `config.read` takes it: its gin text, and the flag as typed.
Flag = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Change:
    """What is added to a run: gin files, and settings."""

    gin_files: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()

    def __add__(self, other: "Change") -> "Change":
        """Returns both, `other` later."""
        return Change(self.gin_files + other.gin_files, self.flags + other.flags)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
      sweep: Name of the sweep.
      title: Its title.
      scale: One of `SCALES`, or None.
      axes: Value of each axis, in order.
      command: One of `COMMANDS`, or `ENSEMBLE`.
      run: Gin files and bindings of the run, without its output folder.
      evaluations: Further tasks for the best checkpoint: name -> what is added to the run.
      members: Keys of the cells whose prompts an ensemble takes; empty for others.
      key: Digest of everything that the run reads, whatever its name and folders.
      search_paths: Folders of gin files that the run's own files include.
    """

    sweep: str
    title: str
    scale: str | None
    axes: Mapping[str, str]
    command: str
    run: Change
    evaluations: Mapping[str, Change] = dataclasses.field(default_factory=dict)
    members: tuple[str, ...] = ()
    key: str = ""
    search_paths: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """`axis=value,axis=value`."""
        return ",".join(f"{axis}={value}" for axis, value in self.axes.items())

    @property
    def row_key(self) -> tuple[str, str]:
        """What a row of the table is found by: sweep and key."""
        return self.sweep, self.key


@dataclasses.dataclass(frozen=True)
class Sweep:
    """An experiment: every combination of the values of its axes is a cell.

    The values are those of `queries.query_literals`: lists and dicts of Python values, references and macros.

    Attributes:
      name: Of the sweep; rows carry it.
      title: For people.
      gin_files: Read by every cell, behind the files of its axes.
      axes: Axis -> value -> what the value adds to the run: `gin_files`, `bindings` (name -> value), `command` (one of
        `COMMANDS`; the last axis that names one wins) and `evaluations`; each may be missing.
      bindings: Of every cell; those of axes override.
      evaluations: Further tasks that the best checkpoint is scored on: name -> `gin_files` and `bindings` that are
        added to the run. Its dataset for evaluation by decoding (`infer_eval_dataset_cfg`) is then the one scored.
      ensemble_over: Axis over whose values the best prompts also vote, in one more cell for each combination of the
        others.

    Raises:
      ConfigError: If a part has the wrong form.
    """

    name: str
    axes: Mapping[str, Mapping[Any, Mapping[str, Any]]]
    title: str = ""
    gin_files: Sequence[str] = ()
    bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    ensemble_over: str | None = None

    def __post_init__(self):
        """Checks the form of every part."""
        is_named = isinstance(self.name, str) and self.name
        _check(is_named, "name", self.name, "text, such as 'figure_3a'")
        _check(isinstance(self.axes, Mapping) and self.axes, "axes", self.axes, "axis -> values")
        for axis, values in self.axes.items():
            where = f"axes[{axis!r}]"
            _check(isinstance(axis, str), where, axis, "text as the name of the axis")
            _check(isinstance(values, Mapping) and values, where, values, "value -> what it adds")
            for name, value in values.items():
                _check_parts(f"{where}[{name!r}]", value, tuple(_FORMS))
        own = {name: getattr(self, name) for name in (*_CHANGE_PARTS, "evaluations")}
        _check_parts("", own, tuple(own))
        if self.ensemble_over is not None and self.ensemble_over not in self.axes:
            raise ConfigError(
                f"{self.name}: sweeps.Sweep.ensemble_over names no axis",
                got=self.ensemble_over,
                expected=f"one of {', '.join(self.axes)}",
                fix="correct it",
                name=self.ensemble_over,
                candidates=self.axes,
            )


def bound(name: str, value: Any) -> Flag:
    """Returns a setting of a run: a name and the Python value that it gets."""
    return gin_flags.binding(f"{gin_flags.PREFIX}{name}={gin_text(value)}")


def gin_text(value: Any) -> str:
    """Returns a value as gin reads it, texts in double quotes: a shell's single quotes then go around the whole."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        items = (f"{gin_text(key)}: {gin_text(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(gin_text, value))
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    return repr(value)


def _check_parts(where: str, value: Any, parts: Sequence[str]) -> None:
    """Raises ConfigError unless `value` holds nothing but these parts, each in its form."""
    _check(isinstance(value, Mapping), where, value, f"a dict with {', '.join(parts)}")
    for part, item in value.items():
        if part not in parts:
            raise ConfigError(
                f"sweeps.Sweep.{where} has an unknown part",
                got=part,
                expected=f"one of {', '.join(parts)}",
                fix="correct it",
                name=str(part),
                candidates=parts,
            )
        is_right, expected = _FORMS[part]
        _check(is_right(item), f"{where}[{part!r}]" if where else part, item, expected)
    for name, change in value.get("evaluations", {}).items():
        _check_parts(f"{where}['evaluations'][{name!r}]", change, _CHANGE_PARTS)


def _check(is_right: Any, part: str, got: Any, expected: str) -> None:
    """Raises ConfigError for a part of the wrong form; names the scale where a macro was left without a value."""
    if is_right:
        return
    fix = "correct the sweep file"
    # A macro without a value: the paper's sweeps take theirs from a scale.
    if type(got).__name__ == "Macro":
        fix = f"add --gin.{got.name}=..., or --scale=mini or --scale=full if the scale sets it"
    raise ConfigError(
        f"sweeps.Sweep.{part} has the wrong form", got=got, expected=expected, fix=fix
    )
