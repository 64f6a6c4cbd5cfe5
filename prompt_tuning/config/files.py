"""Reading gin: finds files, walks their statements and refuses what no run could mean. Imports nothing heavy."""

import dataclasses
import functools
import io
import pathlib
import re
import tokenize
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from etils import epath
from gin import config_parser

from prompt_tuning.config import syntax, tables
from prompt_tuning.data import content, home
from prompt_tuning.errors import ConfigError

PACKAGE_CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
# What a run writes its resolved config to.
SAVED_CONFIG = "config.gin"
PACKAGE_PREFIX = "prompt_tuning/configs/"
_DYNAMIC = "__gin__.dynamic_registration"

# Packages that T5X's and the authors' gin files import and that do not exist here; `prompt_tuning.train` is one file.
_T5X_PACKAGES = ("t5x", "flaxformer", "prompt_tuning.train")


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/name` or, where it is called, `@scope/name()`."""

    name: str
    called: bool

    def __repr__(self) -> str:
        """The gin text."""
        return f"@{self.name}{'()' if self.called else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%NAME`."""

    name: str

    def __repr__(self) -> str:
        """The gin text."""
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True)
class Source:
    """One reading of one file, or one flag.

    Attributes:
      name: Path of the file, or the flag as it was typed.
      is_file: Whether it is a file.
      is_shipped: Whether it is a file of this package.
      is_of_run: Whether it is a `config.gin`, as runs leave one, or included by one.
      index: Position in the order of reading; a file read twice has two.
    """

    name: str
    is_file: bool
    is_shipped: bool
    is_of_run: bool
    index: int


@dataclasses.dataclass(frozen=True)
class Binding:
    """`scope/selector.arg = value`, or the macro `selector = value` (`arg` empty)."""

    scope: str
    selector: str
    arg: str
    value: Any
    source: Source
    line: int

    @property
    def where(self) -> str:
        """`file:line`, or the flag."""
        return f"{self.source.name}:{self.line}" if self.source.is_file else self.source.name


@dataclasses.dataclass(frozen=True)
class Import:
    """`import module`, `from package import module`, each perhaps `as` another name."""

    module: str
    bound_name: str
    binds_whole_path: bool
    source: Source
    line: int

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.source.name}:{self.line}"

    @property
    def is_dynamic_registration(self) -> bool:
        """Whether this is `from __gin__ import dynamic_registration`."""
        return self.module == _DYNAMIC


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What was read, in order; later statements override earlier ones.

    Attributes:
      statements: Of all files, includes in place, then of all flags.
      files: Path of each file read, in order, once.
    """

    statements: tuple[Binding | Import, ...]
    files: tuple[str, ...]


class _Recorder(config_parser.ParserDelegate):
    """Keeps references and macros as written; names are looked up later, when their place is known."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        """Returns the record of a reference."""
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name):
        """Returns the record of a macro."""
        return Macro(macro_name)


def map_value(fn: Callable[[Any], Any], value: Any) -> Any:
    """Returns `value` with every leaf of its lists, tuples and dicts (keys too) replaced by `fn(leaf)`."""
    if isinstance(value, dict):
        return {map_value(fn, key): map_value(fn, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_value(fn, item) for item in value)
    return fn(value)


def leaves(value: Any) -> list[Any]:
    """Returns the leaves of nested lists, tuples and dicts (keys too)."""
    found: list[Any] = []
    map_value(found.append, value)
    return found


def shipped_files() -> list[str]:
    """Returns the names of this package's gin files, as `prompt_tuning/configs/...`; not those for T5X's programs."""
    names = {
        path.relative_to(PACKAGE_CONFIGS).as_posix() for path in PACKAGE_CONFIGS.rglob("*.gin")
    }
    names |= {n.replace("_prompt.gin", ".gin") for n in names if n.startswith("models/")}
    return sorted(PACKAGE_PREFIX + name for name in names if not name.startswith("t5x/"))


def _with_prompt(path: epath.Path) -> pathlib.Path | None:
    """The file of a shipped model with a prompt, for the name `models/X.gin` of the model without; None for others."""
    file = pathlib.Path(path)
    # The root of a file system has no name.
    if not file.name:
        return None
    twin = file.with_name(f"{file.stem}_prompt.gin")
    is_model = twin.resolve().is_relative_to((PACKAGE_CONFIGS / "models").resolve())
    return twin if is_model and twin.is_file() and not file.exists() else None


def text_of(path: epath.Path) -> str:
    """Returns the text of a file that `find_file` found; of a model without a prompt, what it means.

    Raises:
      ConfigError: If it is not UTF-8.
    """
    twin = _with_prompt(path)
    if twin is None:
        content = path.read_bytes()
        try:
            # A byte order mark, as some editors write one, is no part of the text.
            return content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise syntax.not_utf8(content, str(path), error) from None
    return f"include '{PACKAGE_PREFIX}models/{twin.name}'\nPROMPT = None\n"


def find_file(
    name: str, search_paths: Sequence[str] = (), *, where: str = "--gin_file"
) -> epath.Path:
    """Returns the gin file that `name` means.

    `prompt_tuning/configs/...` is looked up in the installed package first, so that a search path that holds the
    original authors' files of the same name does not hide this package's. Everything else is looked up as a path, in
    `search_paths`, and then below the package's `configs`.

    Args:
      name: Path on disk, `gs://` address, or name below `prompt_tuning/configs`.
      search_paths: Folders, in order.
      where: What named the file, for the error.

    Returns:
      A path that `text_of` reads: of a file, or `models/X.gin` for `models/X_prompt.gin` without its prompt.

    Raises:
      ConfigError: If there is none; lists the closest names that exist.
    """
    name = home.expand(name)
    tried: list[epath.Path] = []
    if name.startswith(PACKAGE_PREFIX):
        tried.append(epath.Path(PACKAGE_CONFIGS / name.removeprefix(PACKAGE_PREFIX)))
    tried.append(epath.Path(name))
    if not pathlib.PurePath(name).is_absolute() and "://" not in name:
        tried += [epath.Path(folder) / name for folder in search_paths]
        tried.append(epath.Path(PACKAGE_CONFIGS / name))
    for path in tried:
        # No device and no pipe, which might never end.
        if content.is_file(path) or _with_prompt(path):
            return path
    known = shipped_files()
    neighbours = pathlib.Path(name).parent.glob("*.gin") if "://" not in name else ()
    raise ConfigError(
        f"gin file not found ({where})",
        got=name,
        expected="a path, a file in --gin_search_paths, or a file below prompt_tuning/configs",
        fix="correct the name",
        name=name,
        candidates=[
            *known,
            *(full.removeprefix(PACKAGE_PREFIX) for full in known),
            *(str(path) for path in neighbours),
        ],
    )


def read(
    files: Iterable[str], bindings: Iterable[tuple[str, str]] = (), search_paths: Sequence[str] = ()
) -> Parsed:
    """Reads gin files, then single bindings.

    Args:
      files: Names, see `find_file`; in order, later ones override.
      bindings: `(text, flag as typed)`, applied after all files, e.g. `("BATCH_SIZE = 8", "--gin.BATCH_SIZE=8")`.
      search_paths: See `find_file`.

    Returns:
      All statements in the order in which they apply.

    Raises:
      ConfigError: If a file is missing, cannot be parsed, includes itself, or needs T5X.
    """
    statements: list[Binding | Import] = []
    paths: list[str] = []
    num_sources = 0

    def add_file(name: str, where: str, open_files: tuple[str, ...]) -> None:
        nonlocal num_sources
        path = find_file(name, search_paths, where=where)
        text = str(path)
        if text in open_files:
            raise ConfigError(
                f"A gin file includes itself ({where})",
                got=text,
                expected="includes without a circle",
                fix="remove that include",
            )
        # In a checkout the same files are also reached as configs/..., past the package's symlink.
        shipped = pathlib.Path(text).resolve().is_relative_to(PACKAGE_CONFIGS.resolve())
        names = [pathlib.PurePath(file).name for file in (text, *open_files)]
        source = Source(text, True, shipped, SAVED_CONFIG in names, num_sources)
        num_sources += 1
        if text not in paths and path.exists():
            paths.append(text)
        add(text_of(path), source, (*open_files, text))

    def add(text: str, source: Source, open_files: tuple[str, ...]) -> None:
        for statement in _parse(text, source):
            if isinstance(statement, config_parser.IncludeStatement):
                here = f"{source.name}:{statement.location.line_num}"
                _refuse_t5x_file(statement.filename, here)
                add_file(statement.filename, here, open_files)
            else:
                statements.append(statement)

    for name in files:
        if not pathlib.Path(name).exists():
            _refuse_t5x_file(name, "--gin_file")
        add_file(name, "--gin_file", ())
    for text, flag in bindings:
        source = Source(flag, False, False, False, num_sources)
        num_sources += 1
        add(text, source, ())
    return Parsed(tuple(statements), tuple(paths))


# A sweep reads the same files again for each of its cells, and most of the time goes into taking their text apart.
@functools.lru_cache(maxsize=256)
def _statements(text: str) -> tuple[Any, ...]:
    """Returns what gin's parser makes of a text; values are shared between readers, who copy them (`map_value`)."""
    found = tuple(config_parser.ConfigParser(io.StringIO(text), _Recorder()))
    joined = syntax.joined_texts(text)
    if joined is not None:
        line, first, second = joined
        fault = SyntaxError(f"no comma between {first} and {second}")
        fault.lineno = line
        raise fault
    return found


def _first_fault(text: str) -> int | None:
    """Returns the line on which reading a text stops, None if it does not."""
    try:
        _statements(text)
    except SyntaxError as error:
        return error.lineno or 1
    except tokenize.TokenError as error:
        return error.args[1][0]
    return None


def _parse(text: str, source: Source) -> list[Any]:
    """Returns the bindings, imports and includes of one text, imports of T5X refused."""
    statements: list[Any] = []
    try:
        for statement in _statements(text):
            if isinstance(statement, config_parser.BindingStatement):
                scope, selector, arg, value, location = statement
                statements.append(Binding(scope, selector, arg, value, source, location.line_num))
            elif isinstance(statement, config_parser.ImportStatement):
                statements.append(_to_import(statement, source))
            elif isinstance(statement, config_parser.IncludeStatement):
                statements.append(statement)
    except SyntaxError as error:
        where = source.name if source.is_file else None
        raise syntax.error(text, where, error.lineno or 1, str(error.msg), _first_fault) from None
    except tokenize.TokenError as error:
        where, (line, _) = source.name if source.is_file else None, error.args[1]
        raise syntax.error(text, where, line, str(error.args[0]), _first_fault) from None
    return statements


def _to_import(statement: config_parser.ImportStatement, source: Source) -> Import:
    """Returns the record of an import; raises if it is one that only works with T5X installed."""
    line = statement.location.line_num
    module = statement.module
    if any(module == package or module.startswith(f"{package}.") for package in _T5X_PACKAGES):
        instead = tables.table("t5x_modules").get(module)
        written = (
            f"delete the line; names of {module} need no import here, write for example `{instead}`"
            if instead
            else "delete the line; docs/t5x/from_t5x.md says what to write for each name of T5X"
        )
        raise ConfigError(
            f"{source.name}:{line}: gin files here import nothing from T5X",
            got=statement.format(),
            expected="bindings of the names in docs/t5x/from_t5x.md, which are registered already",
            fix=written,
        )
    binds_whole_path = not (statement.is_from or statement.alias)
    return Import(module, statement.bound_name(), binds_whole_path, source, line)


def _refuse_t5x_file(name: str, where: str) -> None:
    """Raises ConfigError if `name` is a gin file of T5X or Flaxformer, or one of this package for T5X's programs."""
    if not name.startswith(("t5x/", "flaxformer/")) and "configs/t5x/" not in name:
        return
    here = tables.table("t5x_files").items()
    instead = next((re.sub(p, new, name) for p, new in here if re.fullmatch(p, name)), None)
    if where == "--gin_file":
        written = f"--gin_file={instead}" if instead else "leave the flag out"
    else:
        written = f"include '{instead}'" if instead else "delete the line"
    raise ConfigError(
        f"{where}: gin files of T5X, and those for T5X's programs, cannot be used here",
        got=name,
        expected="a file of this package or of your own",
        fix=f"write instead: {written}"
        if instead
        else f"{written} (docs/t5x/from_t5x.md has a row per name)",
    )
