"""A plan: the bindings of a run after all files and flags, with every name looked up."""

import dataclasses
import pprint
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import gin
from gin import config as gin_config

from prompt_tuning.config import values
from prompt_tuning.config.files import Binding, Import, Macro, Parsed, Reference, leaves, map_value
from prompt_tuning.config.names import Configurable, Names, parameter
from prompt_tuning.config.trust import ANYTHING, Trust
from prompt_tuning.data import home
from prompt_tuning.errors import ConfigError

REQUIRED = Macro("gin.REQUIRED")
FROM_FILES = "prompt_tuning.tasks.from_files"
# What registers tasks that a config describes.
DESCRIBERS = (FROM_FILES, "prompt_tuning.tasks.t0", "prompt_tuning.tasks.few_shot")
# (scope, complete selector, parameter).
Key = tuple[str, str, str]
_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Setting:
    """A value (its references complete) and the statement that set it."""

    value: Any
    binding: Binding

    @property
    def is_users(self) -> bool:
        """Whether a flag or a file outside this package set it."""
        return not self.binding.source.is_shipped


@dataclasses.dataclass
class Plan:
    """All bindings of a run; the last one of each name.

    Attributes:
      command: `train`, `eval` or `infer`.
      imports: Imports of all files.
      macros: By name, scope included.
      settings: By key.
      configurables: By complete selector; everything that is bound or referred to.
    """

    command: str
    imports: list[Import] = dataclasses.field(default_factory=list)
    macros: dict[str, Setting] = dataclasses.field(default_factory=dict)
    settings: dict[Key, Setting] = dataclasses.field(default_factory=dict)
    configurables: dict[str, Configurable] = dataclasses.field(default_factory=dict)

    def remember(self, found: Configurable) -> None:
        """Keeps what was found; that it came through an import is not forgotten when it is found again without."""
        known = self.configurables.get(found.selector)
        if known is None or not known.imported:
            self.configurables[found.selector] = found

    def bound(self, selector: str, scope: tuple[str, ...] = ()) -> dict[str, Key]:
        """Returns parameter -> key of the setting that a call inside `scope` takes; the innermost scope wins."""
        taken: dict[str, Key] = {}
        for depth in range(len(scope) + 1):
            prefix = "/".join(scope[:depth])
            for key in self.settings:
                if key[:2] == (prefix, selector):
                    taken[key[2]] = key
        return taken

    @property
    def describers(self) -> list[str]:
        """Those of `DESCRIBERS` that the user binds; their tasks are registered whichever of the names the run reads.

        A file of this package that binds one, as that of a run on T0's mixture, describes no task by that alone: the
        user may have named another.
        """
        return [
            name
            for name in DESCRIBERS
            if any(self.settings[key].is_users for key in self.bound(name).values())
        ]

    def literal(self, value: Any) -> Any:
        """Returns `value` with macros followed; REQUIRED, references and unset macros stay as they are."""
        if isinstance(value, Macro) and value.name in self.macros:
            return self.written(self.macros[value.name]).value
        return value

    def written(self, setting: Setting) -> Setting:
        """Returns the setting behind all macros that holds the value of another; of a circle of macros one of them."""
        for _ in range(len(self.macros) + 1):
            if not (isinstance(setting.value, Macro) and setting.value.name in self.macros):
                break
            setting = self.macros[setting.value.name]
        return setting


def make_plan(
    parsed: Parsed, command: str, runnable: Callable[..., Any] | None, trust: Trust = ANYTHING
) -> Plan:
    """Looks up every name and keeps the last binding of each.

    Args:
      parsed: Statements in order.
      command: `train`, `eval` or `infer`.
      runnable: The command's function; None where its parameters are not to be checked.
      trust: What files of runs may name.

    Returns:
      The plan. Modules that the files import have been imported.

    Raises:
      ConfigError: If a name is unknown or not to be trusted, one file binds a name twice, or a value is of the wrong
        type.
    """
    values.check(parsed)
    plan, names = Plan(command), Names(command, runnable, trust)
    seen: dict[tuple[int, Any], Binding] = {}
    for statement in parsed.statements:
        if isinstance(statement, Import):
            names.add_import(statement)
            plan.imports.append(statement)
            continue
        key = _key(plan, names, statement)
        # Gin itself takes the last of two lines silently, which in one file is a slip.
        first = seen.setdefault((statement.source.index, key), statement)
        if first is not statement and statement.source.is_file:
            raise ConfigError(
                f"{show(plan, key)} is bound twice in {statement.source.name}",
                got=f"lines {first.line} and {statement.line}",
                expected="one binding of a name in one file",
                fix="delete one of the two lines",
            )

        is_path = re.search("(dir|path|file)$", statement.arg or statement.selector, re.IGNORECASE)

        def complete(leaf: Any, binding: Binding = statement, is_path: Any = is_path) -> Any:
            if isinstance(leaf, str) and (is_path or "/" in leaf):
                return home.expand(leaf)
            if not isinstance(leaf, Reference):
                return leaf
            *scopes, name = leaf.name.split("/")
            found = names.find(name, binding)
            if found.is_runnable:
                raise ConfigError(
                    f"{binding.where}: a run cannot be part of a value",
                    got=leaf,
                    expected="a reference to something else",
                    fix=f"bind the parameters of {found.display}",
                )
            plan.remember(found)
            return Reference("/".join([*scopes, found.selector]), leaf.called)

        setting = Setting(map_value(complete, statement.value), statement)
        if isinstance(key, str):
            plan.macros[key] = setting
        else:
            plan.settings[key] = setting
    return plan


def _key(plan: Plan, names: Names, binding: Binding) -> Key | str:
    """Returns the key of a parameter, or the name of a macro."""
    if not binding.arg:
        return f"{binding.scope}/{binding.selector}" if binding.scope else binding.selector
    found = names.find(binding.selector, binding)
    plan.remember(found)
    return binding.scope, found.selector, parameter(found, binding.arg, binding.where)


def literals(plan: Plan, value: Any, ignored: Collection[str] = ()) -> Any:
    """Returns `value` with macros replaced by their values, but those in `ignored` and those that are not set."""

    def follow(leaf: Any) -> Any:
        if not isinstance(leaf, Macro) or leaf.name not in plan.macros or leaf.name in ignored:
            return leaf
        # A macro that leads back to itself stays as it is there.
        return literals(plan, plan.macros[leaf.name].value, {*ignored, leaf.name})

    return map_value(follow, value)


def show(plan: Plan, key: Key | str, complete: bool = False) -> str:
    """Returns a name as gin text: a macro's own, else `scope/name.parameter`."""
    if isinstance(key, str):
        return key
    scope, selector, arg = key
    name = selector if complete else plan.configurables[selector].display
    return f"{scope}/{name}.{arg}" if scope else f"{name}.{arg}"


def bind(plan: Plan) -> None:
    """Hands all bindings but those of runnables to gin."""
    for name, setting in plan.macros.items():
        gin.bind_parameter((name, "gin.macro", "value"), to_gin(setting.value))
    for key, setting in plan.settings.items():
        if not plan.configurables[key[1]].is_runnable:
            gin.bind_parameter(key, to_gin(setting.value))


def to_gin(value: Any) -> Any:
    """Returns `value` with gin's own references; a deep copy of the result evaluates them."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, Reference):
            return gin_config.ConfigurableReference(leaf.name, leaf.called)
        if isinstance(leaf, Macro):
            return gin_config.ParserDelegate().macro(leaf.name)
        return leaf

    return map_value(convert, value)


def to_text(plan: Plan, is_kept: Callable[[Key], bool], comments: Iterable[str] = ()) -> str:
    """Returns one gin file that means the same as the plan.

    Args:
      plan: The plan.
      is_kept: Whether a setting is written; macros are written where a written value reads them or the user set them.
      comments: Lines put on top as comments.

    Returns:
      Imports, macros, then bindings by name.
    """
    kept = [key for key in plan.settings if is_kept(key)]
    macros: set[str] = set()

    def keep_macros_of(value: Any) -> None:
        for leaf in leaves(value):
            if isinstance(leaf, Macro) and leaf.name in plan.macros and leaf.name not in macros:
                macros.add(leaf.name)
                keep_macros_of(plan.macros[leaf.name].value)

    for key in kept:
        keep_macros_of(plan.settings[key].value)
    for name, setting in plan.macros.items():
        if setting.is_users:
            keep_macros_of(Macro(name))

    dynamic = any(configurable.imported for configurable in plan.configurables.values())
    modules = sorted(
        {s.module for s in plan.imports if not s.is_dynamic_registration} - {"__main__"}
    )
    # What follows a line break would be gin.
    lines = [f"# {' '.join(comment.splitlines())}" for comment in comments]
    lines += ["from __gin__ import dynamic_registration"] * dynamic
    lines += [f"import {module}" for module in modules]
    if len(lines):
        lines.append("")
    lines += [_line(plan, name, plan.macros[name].value, dynamic) for name in sorted(macros)]
    previous = None
    for key in sorted(kept, key=lambda k: (plan.configurables[k[1]].display.lower(), k[0], k[2])):
        if key[:2] != previous:
            lines.append("")
        previous = key[:2]
        lines.append(_line(plan, show(plan, key, dynamic), plan.settings[key].value, dynamic))
    return "\n".join(lines) + "\n"


def _line(plan: Plan, name: str, value: Any, complete: bool) -> str:
    """Returns `name = value`, over several lines where it is long."""

    def shorten(leaf: Any) -> Any:
        if complete or not isinstance(leaf, Reference):
            return leaf
        *scopes, selector = leaf.name.split("/")
        return Reference("/".join([*scopes, plan.configurables[selector].display]), leaf.called)

    value = map_value(shorten, value)
    text = (
        repr(value)
        if isinstance(value, str)
        else pprint.pformat(value, _WIDTH - 4, sort_dicts=False)
    )
    if "\n" not in text:
        return f"{name} = {text}"
    return f"{name} = \\\n" + "\n".join(f"    {line}" for line in text.split("\n"))
