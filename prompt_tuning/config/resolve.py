"""Gin, end to end: what `files.read` has read is checked, and a command's function gets its arguments.

Names are looked up in `names`, the merged bindings are in `plan`, checks in `checks`. Runnables are handed in by
`command_line`; nothing outside this folder knows about gin.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import gin

from prompt_tuning import errors
from prompt_tuning.config import checks, names
from prompt_tuning.config.files import Parsed, Reference
from prompt_tuning.config.names import RUNNABLES
from prompt_tuning.config.plan import (
    Key,
    Plan,
    bind,
    literals,
    make_plan,
    show,
    to_gin,
    to_text,
)
from prompt_tuning.config.trust import ANYTHING, Trust
from prompt_tuning.errors import PromptTuningError


@dataclasses.dataclass(frozen=True)
class ResolvedConfig:
    """A checked config, ready to run.

    Attributes:
      runnable: The command's function.
      text: One gin file that runs again by itself.
      files: Gin files that were read.
      warnings: Texts for the user.
    """

    runnable: Callable[..., Any]
    text: str
    files: tuple[str, ...]
    warnings: tuple[str, ...]
    _plan: Plan = dataclasses.field(repr=False)

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of the runnable; builds every object that the config describes.

        Raises:
          ConfigError: If an object refuses its settings.
        """
        register_task(self._plan)
        return arguments_of(self._plan)

    def run(self) -> Any:
        """Calls the runnable, with `config_text` where it takes one, and returns what it returns."""
        arguments = self.arguments()
        if "config_text" in inspect.signature(self.runnable).parameters:
            arguments["config_text"] = self.text
        return self.runnable(**arguments)

    def identity(self) -> str:
        """Returns all that the run reads, but where it is written to: a tracker, and values of macros named `..._DIR`.

        Two runs that differ in nothing else have the same text, however their files say it.
        """
        read_ones = checks.reach_of_command(self._plan).settings
        folders = {name for name in self._plan.macros if name.endswith("_DIR")}
        lines = {}
        for key, setting in self._plan.settings.items():
            if key in read_ones or not self._plan.configurables[key[1]].is_ours:
                name = show(self._plan, key)
                if name == "train.train.tracker" or name.startswith("trackers."):
                    continue
                lines[name] = literals(self._plan, setting.value, folders)
        return "\n".join(f"{name} = {lines[name]!r}" for name in sorted(lines))


def resolve(
    parsed: Parsed,
    runnable: Callable[..., Any],
    *,
    command: str,
    comments: Sequence[str] = (),
    trust: Trust = ANYTHING,
) -> ResolvedConfig:
    """Checks what was read and binds it; replaces whatever gin held before.

    Args:
      parsed: What `files.read` returned.
      runnable: The command's function; its keyword arguments are what gin binds.
      command: `train`, `eval` or `infer`.
      comments: Lines for the top of the saved text.
      trust: What files of runs may name.

    Returns:
      The resolved config. Gin keeps the bindings, for users' own configurables that are called during the run.

    Raises:
      ConfigError: If a name is unknown or bound twice in a file, a value is missing or mistyped, or a module that a
        file imports cannot be imported or is not to be trusted.
    """
    names.register()
    # The process may have resolved another run before: tests, sweeps and notebooks do.
    gin.clear_config()
    plan = make_plan(parsed, command, runnable, trust)
    check_task_module(plan, trust)
    warnings = checks.check(plan)
    bind(plan)
    text = to_text(plan, _kept(plan), comments)
    return ResolvedConfig(runnable, text, parsed.files, tuple(warnings), plan)


def set_data_dirs(tfds_data_dir: str | None, cache_dirs: Sequence[str]) -> None:
    """Tells SeqIO where prepared datasets and cached tasks are.

    Args:
      tfds_data_dir: Folder of TensorFlow Datasets, for all tasks; None for its default.
      cache_dirs: Folders searched for cached tasks besides SeqIO's own.
    """
    if not tfds_data_dir and not cache_dirs:
        return
    import seqio

    if tfds_data_dir:
        seqio.set_tfds_data_dir_override(tfds_data_dir)
    seqio.add_global_cache_dirs(list(cache_dirs))


def _kept(plan: Plan) -> Callable[[Key], bool]:
    """Returns which settings are saved: all but those of this package's files that the run does not read."""
    read_ones = checks.reach_of_all(plan).settings
    return lambda key: (
        key in read_ones or plan.settings[key].is_users or not plan.configurables[key[1]].is_ours
    )


def check_task_module(plan: Plan, trust: Trust) -> None:
    """Raises ConfigError if the file of a run has tasks registered by a module that is not trusted."""
    keys = [
        key for key in plan.settings if show(plan, ("", *key[1:])) == "utils.DatasetConfig.module"
    ]
    for name in ("MIXTURE_OR_TASK_MODULE", *keys):
        setting = plan.macros.get(name) if isinstance(name, str) else plan.settings[name]
        # Who wrote the text counts, not who refers to it; and a text may be put together by a call.
        written = plan.written(setting) if setting else None
        if written and isinstance(written.value, str | Reference):
            trust.check_import(str(written.value), written.binding.source, written.binding.where)


def arguments_of(plan: Plan, names: Collection[str] | None = None) -> dict[str, Any]:
    """Returns the arguments that a bound plan gives its command's function; with `names` those of them alone."""
    keys = plan.bound(RUNNABLES[plan.command])
    return {
        name: evaluate(plan.settings[key].value)
        for name, key in keys.items()
        if names is None or name in names
    }


def register_task(plan: Plan) -> None:
    """Registers the tasks that the config describes, so that a run can name their ranked forms too."""
    for describer in plan.describers:
        evaluate(Reference(describer, called=True))


def evaluate(value: Any) -> Any:
    """Returns `value` with references called and macros replaced."""
    try:
        return copy.deepcopy(to_gin(value))
    except PromptTuningError as error:
        # gin appends where it was called from; the text of our own errors is complete without.
        text = str(error).split("\n  In call to configurable")[0]
        original = next(c for c in type(error).__mro__ if c in vars(errors).values())
        raise Exception.__new__(original, text) from error
