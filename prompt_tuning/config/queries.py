"""What gin files and finished runs say, for programs that run nothing of it; gin is left as it was found."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import gin
from etils import epath
from gin import config as gin_config

from prompt_tuning.config import checks, files, names, resolve
from prompt_tuning.config.files import Macro, Parsed
from prompt_tuning.config.plan import REQUIRED, Plan, bind, literals, make_plan, show
from prompt_tuning.config.trust import ANYTHING, Trust
from prompt_tuning.errors import ConfigError

_PARTS = ("model", "model_dir", "partitioner", "train_dataset_cfg", "checkpoint_cfg")


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
    trainable_regex: Sequence[str] = (".*",)
    text: str = ""


def query_run(path: str, allow_imports: Sequence[str] = ()) -> RunDescription:
    """Builds the parts of a training run from its saved config.

    Args:
      path: MODEL_DIR, or its config.gin.
      allow_imports: Modules that it may import; others than this package and SeqIO are refused.

    Returns:
      The description.

    Raises:
      ConfigError: If there is no config.gin or it is not one of `prompt-tuning train`, or names code of its own.
    """
    file = epath.Path(path)
    if file.is_dir():
        file = file / files.SAVED_CONFIG
    if not file.is_file() or file.name != files.SAVED_CONFIG:
        raise ConfigError(
            "This folder holds no config.gin",
            got=str(path),
            expected="the MODEL_DIR of a run of `prompt-tuning train`",
            fix="give that folder",
        )
    with _planned(files.read([str(file)]), Trust(allow_imports)) as plan:
        checks.check(plan)
        bind(plan)
        parts = resolve.arguments_of(plan, (*_PARTS, "trainable_regex"))
    return RunDescription(**parts, text=file.read_text())


def query_arguments(
    parsed: Parsed,
    wanted: Collection[str],
    stand_ins: Mapping[str, Any],
    may_be_unset: Sequence[str],
) -> tuple[str, dict[str, Any]]:
    """Builds arguments of a command's function that are not to be run.

    Args:
      parsed: What `files.read` returned.
      wanted: Arguments to build, of those that are bound.
      stand_ins: Macros that the arguments need no real value of, and what they are set to.
      may_be_unset: Macros that are None where no value is given.

    Returns:
      The command that the files describe (`train`, `eval` or `infer`), and value by name.

    Raises:
      ConfigError: As `resolve`; steps to train and initial weights need not be set.
    """
    with _planned(parsed) as plan:
        bound = (command for command, name in names.RUNNABLES.items() if plan.bound(name))
        plan.command = next(bound, "train")
        unset = [name for name in may_be_unset if plan.literal(Macro(name)) == REQUIRED]
        for macro, value in {**stand_ins, **dict.fromkeys(unset)}.items():
            if macro in plan.macros:
                plan.macros[macro] = dataclasses.replace(plan.macros[macro], value=value)
        checks.check(plan, starts=False)
        bind(plan)
        return plan.command, resolve.arguments_of(plan, wanted)


def query_literals(parsed: Parsed, selector: str) -> dict[str, Any]:
    """Returns what files bind to one configurable, which nothing calls.

    Args:
      parsed: What `files.read` returned.
      selector: Complete name of the configurable.

    Returns:
      Value by parameter. Macros that the files set are replaced by their values; the others, and references, stay as
      they are written: their `repr` is gin text.

    Raises:
      ConfigError: If a name is unknown, or the files bind anything else than macros and this configurable.
    """
    with _planned(parsed) as plan:
        for key, setting in plan.settings.items():
            if key[1] != selector:
                raise ConfigError(
                    f"{setting.binding.where}: this binding is read by no run",
                    got=show(plan, key),
                    expected=f"macros and the parameters of {plan.configurables[selector].display} alone"
                    if selector in plan.configurables
                    else f"bindings of {selector}",
                    fix="move it into a gin file that the runs read, or into `bindings`",
                )
        keys = plan.bound(selector).items()
        return {name: literals(plan, plan.settings[key].value) for name, key in keys}


def query_macros(
    gin_files: Sequence[str], wanted: Sequence[str], allow_imports: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the values of macros that gin files set.

    Args:
      gin_files: They need not make up a whole run.
      wanted: Macros.
      allow_imports: Modules that those of runs may import and have their tasks registered by.

    Returns:
      Value by name, without those that no file sets or that are %gin.REQUIRED.

    Raises:
      ConfigError: If a file is wrong, or an object refuses its settings.
    """
    trust = Trust(allow_imports)
    with _planned(files.read(gin_files), trust) as plan:
        resolve.check_task_module(plan, trust)
        bind(plan)
        resolve.register_task(plan)
        found = {name: plan.macros[name].value for name in wanted if name in plan.macros}
        return {n: resolve.evaluate(value) for n, value in found.items() if value != REQUIRED}


@contextlib.contextmanager
def _planned(parsed: Parsed, trust: Trust = ANYTHING) -> Iterator[Plan]:
    """Gives the block a plan of what was read and an empty gin config, and puts the present one back afterwards."""
    names.register()
    # gin has no public way to copy its config.
    saved = {key: dict(values) for key, values in gin_config._CONFIG.items()}
    was_locked = gin.config_is_locked()
    gin.clear_config()
    try:
        yield make_plan(parsed, "train", None, trust)
    finally:
        gin.clear_config()
        for (scope, selector), values in saved.items():
            for name, value in values.items():
                gin.bind_parameter((scope, selector, name), value)
        if was_locked:
            gin.finalize()
