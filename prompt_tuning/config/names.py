"""The names gin files may bind: T5X's dotted names for this package's classes, and what users' modules add."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import gin
from gin import config as gin_config

from prompt_tuning.config import tables
from prompt_tuning.config.files import Binding, Import
from prompt_tuning.config.trust import ANYTHING, Trust
from prompt_tuning.errors import ConfigError

# Command -> the runnable whose parameters its gin files bind.
RUNNABLES = {
    "train": "train.train",
    "eval": "evaluate.evaluate",
    "infer": "infer.infer",
    "serve": "serve.serve",
}

# Complete name in gin's registry -> the name to show, of what this package registers.
_shipped: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Configurable:
    """A name that was found.

    Attributes:
      selector: Complete name in gin's registry; for a runnable, its name in `RUNNABLES`.
      display: Name to show and to save.
      wrapped: The class or function; None for a runnable that is not the command's.
      imported: Module to import before the name exists, where `dynamic_registration` made it.
    """

    selector: str
    display: str
    wrapped: Callable[..., Any] | None
    imported: str | None = None

    @property
    def is_runnable(self) -> bool:
        """Whether this is one of `RUNNABLES`."""
        return self.selector in RUNNABLES.values()

    @property
    def is_ours(self) -> bool:
        """Whether this package registered it."""
        return self.is_runnable or self.selector in _shipped

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Returns the parameters by name; those of a class are its constructor's."""
        assert self.wrapped is not None
        parameters = dict(_signature(self.wrapped).parameters)
        parameters.pop("config_text", None)
        # A Linen module takes two arguments that its parent sets.
        if self.selector.endswith("network.Transformer"):
            parameters = {name: parameters[name] for name in ("config", "prompt", "method")}
        return parameters

    def takes_anything(self) -> bool:
        """Whether any keyword argument is accepted."""
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters().values())


def add(package: str, name: str, target: Callable[..., Any]) -> None:
    """Registers one configurable with gin; does nothing the second time.

    Args:
      package: What may stand before the name, or "".
      name: Dotted name, as gin files write it.
      target: The class or function.
    """
    selector = f"{package}.{name}" if package else name
    if selector in _shipped:
        return
    module, _, short = selector.rpartition(".")
    gin.external_configurable(target, name=short, module=module)
    _shipped[selector] = name


def register() -> None:
    """Registers what runs are configured with; does nothing the second time.

    `names.toml` lists it. Here is where the libraries are imported, which takes seconds.
    """
    if "t5x.utils.DatasetConfig" in _shipped:
        return
    for package, targets in tables.table("configurables").items():
        for name, target in targets.items():
            add(package, name, pkgutil.resolve_name(target))


def import_module(statement: Import) -> Any:
    """Imports what a gin file asks for; for `import a.b` returns `a`, as Python binds it.

    Raises:
      ConfigError: If it cannot be imported.
    """
    # T5X's run files say `import __main__ as train_script`; those names are aliases here.
    if statement.module == "__main__":
        return None
    try:
        module = importlib.import_module(statement.module)
    except ImportError as error:
        raise ConfigError(
            f"{statement.where}: a module cannot be imported ({error})",
            got=statement.module,
            expected="an importable module",
            fix="install it or add its folder to PYTHONPATH",
        ) from error
    if statement.binds_whole_path:
        return importlib.import_module(statement.module.split(".")[0])
    return module


class Names:
    """Looks up names as gin does, and those of files with dynamic registration through their imports.

    Args:
      command: `train`, `eval` or `infer`.
      runnable: The command's function; None where its parameters are not to be checked.
      trust: What files of runs may name.
    """

    def __init__(self, command: str, runnable: Callable[..., Any] | None, trust: Trust = ANYTHING):
        self._command = command
        self._runnable = runnable
        self._trust = trust
        # Source index -> bound name -> (import, module), for files with dynamic registration only.
        self._symbols: dict[int, dict[str, tuple[Import, Any]]] = {}

    def add_import(self, statement: Import) -> None:
        """Imports the module and, with dynamic registration, binds its name in its file."""
        if statement.is_dynamic_registration:
            self._symbols.setdefault(statement.source.index, {})
            return
        self._trust.check_import(statement.module, statement.source, statement.where)
        module = import_module(statement)
        symbols = self._symbols.get(statement.source.index)
        if symbols is not None and module is not None:
            symbols[statement.bound_name] = (statement, module)

    def find(self, name: str, binding: Binding) -> Configurable:
        """Returns what `name` (without scope) stands for in a binding.

        Raises:
          ConfigError: If nothing or more than one thing has that name; lists the closest names. Or if it is none that
            the file may name.
        """
        where = binding.where
        spelt_so = (
            new for old, new in tables.table("aliases").items() if f".{old}".endswith(f".{name}")
        )
        target = next(spelt_so, name)
        command = next(
            (c for c, full in RUNNABLES.items() if target in (full, full.split(".")[1])), None
        )
        if command is not None:
            fn = self._runnable if command == self._command else None
            return Configurable(RUNNABLES[command], RUNNABLES[command], fn)
        found = self._find_imported(target, binding) or self._find_registered(target, where)
        if found is None:
            raise ConfigError(
                f"{where}: no configurable has this name",
                got=name,
                expected="a name of docs/t5x/from_t5x.md, or one that an imported module registers",
                fix="correct the name, or import the module that defines it",
                name=name,
                candidates=self.known(),
            )
        if not found.is_ours:
            self._trust.check_target(found.wrapped, found.display, binding.source, where)
        return found

    def known(self) -> list[str]:
        """Returns every name that can be bound, as shown to users."""
        # gin has no public way to list its registry.
        registered = [selector for selector, _ in gin_config._REGISTRY.items()]
        return [*RUNNABLES.values(), *(_display(s) for s in registered if not s.startswith("gin."))]

    def _find_imported(self, name: str, binding: Binding) -> Configurable | None:
        """Follows a name through its file's imports, registering what it leads to."""
        symbols = self._symbols.get(binding.source.index, {})
        first, *rest = name.split(".")
        if first not in symbols or not rest:
            return None
        statement, value = symbols[first]
        full = name if statement.binds_whole_path else ".".join([statement.module, *rest])
        if full in _shipped:
            return _from_registry(gin_config._REGISTRY[full])
        self._trust.check_path(full, binding.source, binding.where)
        for attribute in rest:
            value = getattr(value, attribute, None)
            if value is None:
                return None
        existing = gin_config._inverse_lookup(value)
        if existing is None:
            module, _, short = full.rpartition(".")
            gin.external_configurable(value, name=short, module=module)
            existing = gin_config._REGISTRY[full]
        return Configurable(existing.selector, full, existing.wrapped, imported=statement.module)

    def _find_registered(self, name: str, where: str) -> Configurable | None:
        """Looks a name, perhaps shortened from the left, up in gin's registry."""
        matches = gin_config._REGISTRY.matching_selectors(name)
        if len(matches) > 1:
            raise ConfigError(
                f"{where}: more than one configurable has this name",
                got=name,
                expected=f"one of {', '.join(sorted(matches))}",
                fix="write more of its module",
            )
        return _from_registry(gin_config._REGISTRY[matches[0]]) if matches else None


def parameter(configurable: Configurable, name: str, where: str) -> str:
    """Returns the parameter that `name` stands for.

    Raises:
      ConfigError: If there is none; lists the closest ones and, for a parameter of T5X's, what to do instead.
    """
    name = tables.table("parameter_aliases").get(f"{configurable.display}.{name}", name)
    if configurable.wrapped is None:
        return name
    parameters = configurable.parameters()
    if name in parameters or configurable.takes_anything():
        return name
    raise ConfigError(
        f"{where}: {configurable.display} has no parameter of this name",
        got=name,
        expected=f"one of {', '.join(parameters)}",
        fix=tables.table("t5x_parameters").get(
            f"{configurable.display}.{name}", "correct the name"
        ),
        name=name,
        candidates=parameters,
    )


# A sweep asks of hundreds of runs.
@functools.cache
def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function or class."""
    return inspect.signature(fn)


def _display(selector: str) -> str:
    """Returns the name to show for a complete selector: T5X's for ours, the whole one otherwise."""
    return _shipped.get(selector, selector)


def _from_registry(entry: Any) -> Configurable:
    """Returns the record of gin's own entry."""
    return Configurable(entry.selector, _display(entry.selector), entry.wrapped)
