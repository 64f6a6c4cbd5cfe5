"""A sweep, as a gin file describes it, and its cells."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.errors import ConfigError

SELECTOR = "prompt_tuning.sweeps.Sweep"
# What a cell does: trains, is evaluated only, or only has its parameters counted.
COMMANDS = ("train", "eval", "count")
ENSEMBLE = "ensemble"
_CHANGE_KEYS = ("gin_files", "bindings")
_VALUE_KEYS = (*_CHANGE_KEYS, "command", "evaluations")


@dataclasses.dataclass(frozen=True)
class Change:
    """What is added to a run: gin files, and bindings as (name, gin text)."""

    gin_files: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: "Change") -> "Change":
        """Returns both, `other` later."""
        return Change(self.gin_files + other.gin_files, self.bindings + other.bindings)

    @property
    def flags(self) -> list[tuple[str, str]]:
        """The bindings as `config.read` takes them: (text, flag as typed)."""
        return [(f"{name} = {text}", f"--gin.{name}={text}") for name, text in self.bindings]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
      sweep: Name of the sweep.
      title: Its title.
      scale: `full`, `mini`, or None.
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
        if not isinstance(self.name, str) or not self.name:
            raise _form_error("sweeps.Sweep.name", self.name, "text, such as 'figure_3a'")
        _check(isinstance(self.axes, Mapping) and self.axes, "axes", self.axes, "axis -> values")
        for axis, values in self.axes.items():
            where = f"axes[{axis!r}]"
            _check(isinstance(axis, str), where, axis, "text as the name of the axis")
            _check(isinstance(values, Mapping) and values, where, values, "value -> what it adds")
            for name, value in values.items():
                _check_change(f"{where}[{name!r}]", value, _VALUE_KEYS)
                command = value.get("command", COMMANDS[0])
                _check(command in COMMANDS, f"{where}[{name!r}]['command']", command, str(COMMANDS))
                _check_evaluations(f"{where}[{name!r}]", value.get("evaluations", {}))
        _check_change("", {"gin_files": self.gin_files, "bindings": self.bindings}, _CHANGE_KEYS)
        _check_evaluations("", self.evaluations)
        if self.ensemble_over is not None and self.ensemble_over not in self.axes:
            raise ConfigError(
                f"{self.name}: sweeps.Sweep.ensemble_over names no axis",
                got=self.ensemble_over,
                expected=f"one of {', '.join(self.axes)}",
                fix="correct it",
                name=self.ensemble_over,
                candidates=self.axes,
            )


def change_of(value: Mapping[str, Any]) -> Change:
    """Returns the files and bindings of an axis value or of an evaluation; values become gin text."""
    bindings = value.get("bindings", {})
    return Change(
        tuple(value.get("gin_files", ())),
        tuple((name, gin_text(item)) for name, item in bindings.items()),
    )


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


def _check_change(where: str, value: Any, keys: Sequence[str]) -> None:
    """Raises ConfigError unless `value` holds gin files and bindings in the form that `change_of` takes."""
    _check(isinstance(value, Mapping), where, value, f"a dict with {', '.join(keys)}")
    for key in value:
        if key not in keys:
            raise ConfigError(
                f"sweeps.Sweep.{where} has an unknown part",
                got=key,
                expected=f"one of {', '.join(keys)}",
                fix="correct it",
                name=str(key),
                candidates=keys,
            )
    files, bindings = value.get("gin_files", ()), value.get("bindings", {})
    is_files = isinstance(files, (list, tuple)) and all(isinstance(file, str) for file in files)
    _check(is_files, f"{where}['gin_files']", files, "a list of gin files")
    is_bindings = isinstance(bindings, Mapping) and all(isinstance(name, str) for name in bindings)
    _check(
        is_bindings, f"{where}['bindings']", bindings, "name -> value, such as {'BATCH_SIZE': 8}"
    )


def _check_evaluations(where: str, value: Any) -> None:
    """Raises ConfigError unless `value` maps names to what `_check_change` takes."""
    _check(
        isinstance(value, Mapping), f"{where}['evaluations']", value, "name -> gin_files, bindings"
    )
    for name, change in value.items():
        _check_change(f"{where}['evaluations'][{name!r}]", change, _CHANGE_KEYS)


def _check(is_right: Any, part: str, got: Any, expected: str) -> None:
    """Raises ConfigError for a part of the wrong form."""
    if not is_right:
        raise _form_error(f"sweeps.Sweep.{part}", got, expected)


def _form_error(what: str, got: Any, expected: str) -> ConfigError:
    """Returns the error; names the scale where a macro was left without a value."""
    fix = "correct the sweep file"
    # A macro without a value: the paper's sweeps take theirs from a scale.
    if type(got).__name__ == "Macro":
        fix = f"add --gin.{got.name}=..., or --scale=mini or --scale=full if the scale sets it"
    return ConfigError(f"{what} has the wrong form", got=got, expected=expected, fix=fix)
