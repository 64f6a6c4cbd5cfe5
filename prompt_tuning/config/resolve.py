"""Gin, end to end: reads files and flags, checks them, and gives a command's function its arguments.

Reading is in `config_files`, names are in `config_registry`, the merged bindings in `config_plan`, checks in
`config_checks`. Runnables are handed in by `cli`; nothing else in the package knows about gin.
"""

import contextlib
import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from etils import epath
from gin import config as gin_config

from prompt_tuning import errors
from prompt_tuning.config import checks
from prompt_tuning.config import names as config_registry
from prompt_tuning.config import plan as config_plan
from prompt_tuning.config.files import Macro, Parsed, Reference, read
from prompt_tuning.errors import ConfigError, PromptTuningError

__all__ = [
    "Parsed",
    "ResolvedConfig",
    "RunDescription",
    "query_arguments",
    "query_literals",
    "query_macros",
    "query_run",
    "read",
    "resolve",
    "set_data_dirs",
]


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
    _plan: config_plan.Plan = dataclasses.field(repr=False)

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of the runnable; builds every object that the config describes.

        Raises:
          ConfigError: If an object refuses its settings.
        """
        _register_task(self._plan)
        keys = config_plan.runnable_keys(self._plan)
        return {name: _evaluate(self._plan.settings[key].value) for name, key in keys.items()}

    def run(self) -> Any:
        """Calls the runnable, with `config_text` where it takes one, and returns what it returns."""
        arguments = self.arguments()
        if "config_text" in inspect.signature(self.runnable).parameters:
            arguments["config_text"] = self.text
        return self.runnable(**arguments)

    def identity(self) -> str:
        """Returns all that the run reads but the values of macros named `..._DIR`: where its folders are is no setting.

        Two runs that differ in nothing else have the same text, however their files say it.
        """
        read_ones = checks.reach_of_command(self._plan).settings
        folders = {name for name in self._plan.macros if name.endswith("_DIR")}
        lines = {}
        for key, setting in self._plan.settings.items():
            if key in read_ones or not self._plan.configurables[key[1]].is_ours:
                name = config_plan.show(self._plan, key)
                lines[name] = config_plan.literals(self._plan, setting.value, folders)
        return "\n".join(f"{name} = {lines[name]!r}" for name in sorted(lines))


def resolve(
    parsed: Parsed, runnable: Callable[..., Any], *, command: str, comments: Sequence[str] = ()
) -> ResolvedConfig:
    """Checks what was read and binds it; replaces whatever gin held before.

    Args:
      parsed: What `read` returned.
      runnable: The command's function; its keyword arguments are what gin binds.
      command: `train`, `eval` or `infer`.
      comments: Lines for the top of the saved text.

    Returns:
      The resolved config. Gin keeps the bindings, for users' own configurables that are called during the run.

    Raises:
      ConfigError: If a name is unknown or bound twice in a file, a value is missing or mistyped, or a module that a
        file imports cannot be imported.
    """
    config_registry.register()
    gin.clear_config()
    plan = config_plan.make_plan(parsed, command, runnable)
    warnings = checks.check(plan)
    config_plan.bind(plan)
    text = config_plan.to_text(plan, _kept(plan), comments)
    return ResolvedConfig(runnable, text, parsed.files, tuple(warnings), plan)


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """What another program needs to know of a training run, built from its config.gin.

    Attributes:
      model: `EncoderDecoderModel`.
      model_dir: MODEL_DIR as the run was started with; the folder may have moved since.
      partitioner: `PjitPartitioner`.
      train_dataset_cfg: `DatasetConfig` of the training data.
      checkpoint_cfg: `CheckpointConfig`; `restore.path` is INITIAL_CHECKPOINT_PATH.
      trainable_regex: Regular expressions over parameter paths.
      text: The config itself.
    """

    model: Any
    model_dir: str
    partitioner: Any
    train_dataset_cfg: Any
    checkpoint_cfg: Any
    trainable_regex: tuple[str, ...]
    text: str

    @property
    def task_feature_lengths(self) -> dict[str, int] | None:
        """TASK_FEATURE_LENGTHS, in tokens."""
        return self.train_dataset_cfg.task_feature_lengths

    @property
    def mixture_or_task_name(self) -> str:
        """MIXTURE_OR_TASK_NAME."""
        return self.train_dataset_cfg.mixture_or_task_name

    @property
    def initial_checkpoint_path(self) -> str | None:
        """INITIAL_CHECKPOINT_PATH."""
        return self.checkpoint_cfg.restore.path

    @property
    def restore_dtype(self) -> str:
        """Storage type of the frozen weights."""
        return self.checkpoint_cfg.restore.dtype


def query_run(path: str) -> RunDescription:
    """Builds the parts of a training run from its saved config; gin is left as it was found.

    Args:
      path: MODEL_DIR, or its config.gin.

    Returns:
      The description.

    Raises:
      ConfigError: If there is no config.gin or it is not one of `prompt-tuning train`.
    """
    file = epath.Path(path)
    if file.is_dir():
        file = file / "config.gin"
    if not file.exists():
        raise ConfigError(
            "This folder holds no config.gin",
            got=str(path),
            expected="the MODEL_DIR of a run of `prompt-tuning train`",
            fix="give that folder",
        )
    parsed = read([str(file)])
    config_registry.register()
    with _gin_left_alone():
        plan = config_plan.make_plan(parsed, "train", None)
        checks.check(plan)
        config_plan.bind(plan)
        keys = config_plan.runnable_keys(plan)
        names = ("model", "model_dir", "partitioner", "train_dataset_cfg", "checkpoint_cfg")
        values = {name: _evaluate(plan.settings[keys[name]].value) for name in names}
        regex = keys.get("trainable_regex")
        trainable = _evaluate(plan.settings[regex].value) if regex else [".*"]
    return RunDescription(**values, trainable_regex=tuple(trainable), text=file.read_text())


def query_arguments(
    parsed: Parsed, names: Sequence[str], stand_ins: Mapping[str, Any], may_be_unset: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """Builds arguments of a command's function that are not to be run; gin is left as it was found.

    Args:
      parsed: What `read` returned.
      names: Arguments to build, of those that are bound.
      stand_ins: Macros that the arguments need no real value of, and what they are set to.
      may_be_unset: Macros that are None where no value is given.

    Returns:
      The command that the files describe (`train`, `eval` or `infer`), and value by name.

    Raises:
      ConfigError: As `resolve`; steps to train and initial weights need not be set.
    """
    config_registry.register()
    with _gin_left_alone():
        found = config_plan.make_plan(parsed, "train", None)
        runs = config_registry.RUNNABLES.items()
        command = next((c for c, name in runs if found.bound(name)), "train")
        plan = config_plan.make_plan(parsed, command, None)
        unset = [name for name in may_be_unset if plan.literal(Macro(name)) == config_plan.REQUIRED]
        for macro, value in {**stand_ins, **dict.fromkeys(unset)}.items():
            if macro in plan.macros:
                plan.macros[macro] = dataclasses.replace(plan.macros[macro], value=value)
        checks.check(plan, starts=False)
        config_plan.bind(plan)
        keys = config_plan.runnable_keys(plan)
        return command, {
            name: _evaluate(plan.settings[keys[name]].value) for name in names if name in keys
        }


def query_literals(parsed: Parsed, selector: str) -> dict[str, Any]:
    """Returns what files bind to one configurable, which nothing calls; gin is left as it was found.

    Args:
      parsed: What `read` returned.
      selector: Complete name of the configurable.

    Returns:
      Value by parameter. Macros that the files set are replaced by their values; the others, and references, stay as
      they are written: their `repr` is gin text.

    Raises:
      ConfigError: If a name is unknown, or the files bind anything else than macros and this configurable.
    """
    config_registry.register()
    with _gin_left_alone():
        plan = config_plan.make_plan(parsed, "train", None)
    for key, setting in plan.settings.items():
        if key[1] != selector:
            raise ConfigError(
                f"{setting.binding.where}: this binding is read by no run",
                got=config_plan.show(plan, key),
                expected=f"macros and the parameters of {plan.configurables[selector].display} alone"
                if selector in plan.configurables
                else f"bindings of {selector}",
                fix="move it into a gin file that the runs read, or into `bindings`",
            )
    bound = plan.bound(selector)
    return {
        name: config_plan.literals(plan, plan.settings[key].value) for name, key in bound.items()
    }


def query_macros(files: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Returns the values of macros that gin files set; gin is left as it was found.

    Args:
      files: Gin files; they need not make up a whole run.
      names: Macros.

    Returns:
      Value by name, without those that no file sets or that are %gin.REQUIRED.

    Raises:
      ConfigError: If a file is wrong, or an object refuses its settings.
    """
    parsed = read(files)
    config_registry.register()
    with _gin_left_alone():
        plan = config_plan.make_plan(parsed, "train", None)
        config_plan.bind(plan)
        _register_task(plan)
        found = {name: plan.macros[name].value for name in names if name in plan.macros}
        unset = config_plan.REQUIRED
        return {name: _evaluate(value) for name, value in found.items() if value != unset}


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


def _kept(plan: config_plan.Plan) -> Callable[[config_plan.Key], bool]:
    """Returns which settings are saved: all but those of this package's files that the run does not read."""
    read_ones = checks.reach_of_all(plan).settings
    return lambda key: (
        key in read_ones or plan.settings[key].is_users or not plan.configurables[key[1]].is_ours
    )


def _register_task(plan: config_plan.Plan) -> None:
    """Registers the task that the config describes, so that a run can name its ranked form too."""
    if plan.describes_task:
        _evaluate(Reference(config_plan.FROM_FILES, called=True))


def _evaluate(value: Any) -> Any:
    """Returns `value` with references called and macros replaced."""
    try:
        return copy.deepcopy(config_plan.to_gin(value))
    except PromptTuningError as error:
        # gin appends where it was called from; the text of our own errors is complete without.
        text = str(error).split("\n  In call to configurable")[0]
        original = next(c for c in type(error).__mro__ if c in vars(errors).values())
        raise Exception.__new__(original, text) from error


@contextlib.contextmanager
def _gin_left_alone() -> Iterator[None]:
    """Gives the block an empty gin config and puts the present one back afterwards."""
    # gin has no public way to copy its config.
    saved = {key: dict(values) for key, values in gin_config._CONFIG.items()}
    was_locked = gin.config_is_locked()
    gin.clear_config()
    try:
        yield
    finally:
        gin.clear_config()
        for (scope, selector), values in saved.items():
            for name, value in values.items():
                gin.bind_parameter((scope, selector, name), value)
        if was_locked:
            gin.finalize()
