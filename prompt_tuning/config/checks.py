"""What a plan must satisfy before anything is loaded: nothing unset, nothing mistyped, nothing that no one reads."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from gin import config as gin_config

from prompt_tuning.config import tables, values
from prompt_tuning.config.files import Macro, Reference, leaves
from prompt_tuning.config.names import RUNNABLES
from prompt_tuning.config.plan import FROM_FILES, REQUIRED, Key, Plan, show
from prompt_tuning.errors import ConfigError, closest_matches

_RUN_FILES = {
    "train": "prompt_finetune",
    "eval": "prompt_eval",
    "infer": "prompt_infer",
    "serve": "prompt_serve",
}


@dataclasses.dataclass
class Reach:
    """What a run would read, found by following references and macros from its runnable.

    Attributes:
      settings: Keys that some call takes.
      macros: Names that are read.
      unset: Names that are read and have no value, with who reads them.
    """

    settings: set[Key] = dataclasses.field(default_factory=set)
    macros: set[str] = dataclasses.field(default_factory=set)
    unset: dict[str, str] = dataclasses.field(default_factory=dict)
    _calls: set[tuple[str, tuple[str, ...], bool]] = dataclasses.field(default_factory=set)
    # What is being followed, outermost first, as it is written in gin.
    _inside: list[str] = dataclasses.field(default_factory=list)

    def follow_call(self, plan: Plan, selector: str, scope: tuple[str, ...], called: bool) -> None:
        """Follows the settings that a call of `selector` inside `scope` takes."""
        if (selector, scope, called) in self._calls:
            return
        self._calls.add((selector, scope, called))
        bound = plan.bound(selector, scope)
        for key in bound.values():
            self.settings.add(key)
            self.follow_value(plan, plan.settings[key].value, scope, show(plan, key))
        configurable = plan.configurables[selector]
        if called and configurable.is_ours and configurable.wrapped is not None:
            for name, parameter in configurable.parameters().items():
                is_named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
                if is_named and parameter.default is inspect.Parameter.empty and name not in bound:
                    full = show(plan, ("/".join(scope), selector, name))
                    self.unset.setdefault(full, configurable.display)

    def follow_value(self, plan: Plan, value: Any, scope: tuple[str, ...], reader: str) -> None:
        """Follows the references and macros inside a value."""
        if value == REQUIRED:
            self.unset.setdefault(reader, reader)
            return
        for leaf in leaves(value):
            if isinstance(leaf, Reference):
                *scopes, selector = leaf.name.split("/")
                with self._following(str(leaf), leaf.called):
                    self.follow_call(plan, selector, tuple(scopes) or scope, leaf.called)
            elif isinstance(leaf, Macro):
                with self._following(str(leaf)):
                    self._follow_macro(plan, leaf.name, reader)

    def _follow_macro(self, plan: Plan, name: str, reader: str) -> None:
        """Follows the value of a macro."""
        if name in self.macros:
            return
        if name in plan.macros:
            self.macros.add(name)
            # gin evaluates a macro inside the scope of the macro's own name.
            self.follow_value(plan, plan.macros[name].value, tuple(name.split("/")), name)
        # gin has no public way to ask for constants.
        elif not gin_config._CONSTANTS.matching_selectors(name):
            self.unset.setdefault(name, reader)

    @contextlib.contextmanager
    def _following(self, written: str, is_evaluated: bool = True) -> Iterator[None]:
        """Raises ConfigError if a value is evaluated to know itself."""
        if not is_evaluated:
            yield
            return
        if written in self._inside:
            raise ConfigError(
                "A setting needs its own value",
                got=" -> ".join([*self._inside[self._inside.index(written) :], written]),
                expected="values without a circle",
                fix=f"give {self._inside[-1]} what does not lead back to it",
            )
        self._inside.append(written)
        yield
        self._inside.pop()


def check(plan: Plan, *, starts: bool = True) -> list[str]:
    """Checks a plan as a whole.

    Args:
      plan: The plan.
      starts: Whether the run is to start, which takes a number of steps and initial weights.

    Returns:
      Warnings: settings of the user's that nothing reads, each with the closest names that are read.

    Raises:
      ConfigError: If the config is for another command, a value is missing, or a macro has the wrong type.
    """
    _check_command(plan, RUNNABLES[plan.command])
    reach = reach_of_command(plan)
    if reach.unset:
        raise _unset_error(plan, reach.unset)
    _check_types(plan, reach)
    if starts and plan.command == "train":
        _check_start(plan)
    return _unread(plan, reach_of_all(plan))


def reach_of_command(plan: Plan) -> Reach:
    """Returns what the command's runnable reads."""
    reach = Reach()
    reach.follow_call(plan, RUNNABLES[plan.command], (), True)
    for describer in plan.describers:
        reach.follow_call(plan, describer, (), True)
    if FROM_FILES in plan.describers:
        bound = plan.bound(FROM_FILES)
        for name in () if "templates" in bound else ("inputs", "targets"):
            if name not in bound:
                reader = plan.configurables[FROM_FILES].display
                reach.unset.setdefault(f"{reader}.{name}", reader)
    return reach


def reach_of_all(plan: Plan) -> Reach:
    """Returns what is read by any runnable or by users' own code, whether or not this command calls it."""
    reach = Reach()
    for selector, configurable in list(plan.configurables.items()):
        if configurable.is_runnable or not configurable.is_ours:
            for scope in {key[0] for key in plan.settings if key[1] == selector} | {""}:
                reach.follow_call(plan, selector, tuple(scope.split("/")) if scope else (), False)
    for describer in plan.describers:
        reach.follow_call(plan, describer, (), False)
    return reach


def _check_command(plan: Plan, root: str) -> None:
    """Raises ConfigError if no file says what the command does."""
    if plan.bound(root):
        return
    other = [c for c, name in RUNNABLES.items() if plan.bound(name)]
    run_file = f"--gin_file=prompt_tuning/configs/runs/{_RUN_FILES[plan.command]}.gin"
    raise ConfigError(
        f"The gin files say nothing about `prompt-tuning {plan.command}`",
        got=f"a config for `prompt-tuning {other[0]}`" if other else "no run file",
        expected=f"bindings of {root}",
        fix=f"add {run_file}" + (f", or run `prompt-tuning {other[0]}`" if other else ""),
    )


def _unset_error(plan: Plan, unset: dict[str, str]) -> ConfigError:
    """Returns the error that names everything without a value and shows how to give the first one."""
    first, reader = next(iter(unset.items()))
    kind, _ = tables.kinds().get(first, (None, False))
    value = {None: "VALUE", "count": "10"}.get(kind, "\"'/path'\"")
    example = tables.table("examples").get(first, f"--gin.{first}={value}")
    hint = f" ({reader} reads it)" if reader != first else ""
    return ConfigError(
        f"{'A required value is' if len(unset) == 1 else 'Required values are'} not set{hint}",
        got=", ".join(unset),
        expected="a value for each",
        fix=f"add for example {example}",
        name=first if kind is None and first not in tables.table("examples") else None,
        candidates=[name for name in plan.macros if name not in unset],
    )


def _check_types(plan: Plan, reach: Reach) -> None:
    """Raises ConfigError for the first macro that is read and has, by way of others too, a value of the wrong type."""
    for name in sorted(reach.macros):
        setting = plan.macros[name]
        values.check_value(name, plan.literal(setting.value), setting.binding.where)


def _check_start(plan: Plan) -> None:
    """Raises ConfigError if training does not say how long, or from what: random weights are asked for by name."""

    def is_bound_to(value: Any, selector: str, name: str) -> bool:
        key = plan.bound(selector).get(name)
        return key is not None and plan.literal(plan.settings[key].value) is value

    train = RUNNABLES["train"]
    unbound = "relative_steps" not in plan.bound(train)
    no_relative = unbound or is_bound_to(None, train, "relative_steps")
    if no_relative and is_bound_to(None, train, "total_steps"):
        raise ConfigError(
            "The number of steps is not set",
            got=None,
            expected="TRAIN_STEPS, which includes the steps of a T5X checkpoint, or TRAIN_STEPS_RELATIVE",
            fix="add for example --gin.TRAIN_STEPS_RELATIVE=30_000",
        )
    no_path = is_bound_to(None, "t5x.utils.RestoreCheckpointConfig", "path")
    if no_path and is_bound_to(False, train, "initialize_from_scratch"):
        raise ConfigError(
            "INITIAL_CHECKPOINT_PATH is not set",
            got=None,
            expected="the checkpoint of a pre-trained model",
            fix="add --gin.INITIAL_CHECKPOINT_PATH=\"'/path/checkpoint_1100000'\", "
            "or --gin.INITIALIZE_FROM_SCRATCH=True for random weights",
        )


def _unread(plan: Plan, read: Reach) -> list[str]:
    """Returns a warning for each setting of the user's that nothing reads."""
    used = {show(plan, key) for key in read.settings}
    settings = {
        show(plan, key): setting
        for key, setting in plan.settings.items()
        if key not in read.settings and plan.configurables[key[1]].is_ours
    }
    macros = {name: setting for name, setting in plan.macros.items() if name not in read.macros}
    warnings = []
    for unread, others in ((macros, read.macros), (settings, used)):
        for name, setting in unread.items():
            if setting.is_users:
                closest = ", ".join(closest_matches(name, others))
                text = f"nothing in this run reads {name} ({setting.binding.where})."
                warnings.append(text + (f" Closest matches: {closest}." if closest else ""))
    return warnings
