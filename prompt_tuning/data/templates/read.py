"""Templates from files: promptsource's folder, its source archive, or one YAML file of the same form."""

import dataclasses
import functools
import re
import reprlib
import tarfile
from collections.abc import Iterator
from typing import Any

import yaml
from etils import epath

from prompt_tuning.data import home, lines
from prompt_tuning.data.content import is_file
from prompt_tuning.errors import ConfigError

FILE_NAME = "templates.yaml"
# Those of this package: for SuperGLUE, and for the synthetic suite.
SHIPPED = epath.resource_path("prompt_tuning") / "data/templates/assets"
# promptsource's largest file has 130 kB, its archive 1.4 MB of them.
_FILE_BYTES = 2_000_000
_ARCHIVE_BYTES = 50_000_000
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")
_YAML_SUFFIXES = (".yaml", ".yml")

# Data set and subset, None where it has no subsets.
Key = tuple[str, str | None]


@dataclasses.dataclass(frozen=True)
class Template:
    """One template as it was written; `render.Renderer` makes text of it.

    Attributes:
      name: Its name, of which a task's name is made; no two of a file have the same.
      id: What promptsource knows it by, the key in the file.
      jinja: Jinja text of inputs and targets, `|||` between them.
      answer_choices: Jinja text of the answers, `|||` between them; None where targets are free text.
      original_task: Whether it asks for what the data set was made for; None where that is not said.
      choices_in_prompt: Whether the inputs name the answers; None where that is not said.
      metrics: Names of metrics, as promptsource writes them.
      source: The file it is from; templates that differ in nothing else are equal.
    """

    name: str
    id: str
    jinja: str
    answer_choices: str | None
    original_task: bool | None
    choices_in_prompt: bool | None
    metrics: tuple[str, ...]
    source: str = dataclasses.field(compare=False)

    def __str__(self) -> str:
        return f"{self.source}: template {self.name!r}"

    def task_name(self, data: str) -> str:
        """Returns the name of a task as T0 makes it: of the data's name and the template's, what SeqIO refuses as `_`.

        Args:
          data: Name of the data set, with its subset.
        """
        return re.sub(r"[^\w.]+", "_", f"{data}_{self.name}")


def read_templates(path: str) -> dict[Key, list[Template]]:
    """Reads templates; each file says in `dataset` and `subset` whose they are.

    Args:
      path: A folder with `DATASET/templates.yaml` and `DATASET/SUBSET/templates.yaml` in it, as promptsource's
        `templates/`; promptsource's source archive (`.tar.gz`), which is read in memory; or one YAML file. May be a
        `gs://` path; what does not exist may be one of this package's own, such as `super_glue/rte`.

    Returns:
      (data set, subset or None) -> its templates, sorted by name.

    Raises:
      ConfigError: There is nothing to read, or a file does not parse or holds something else; names file and line.
    """
    root = epath.Path(home.expand(path))
    if not root.exists() and (SHIPPED / path).exists():
        root = SHIPPED / path
    found: dict[Key, list[Template]] = {}
    for where, text in _files(root):
        key, templates = _parse(text, where)
        if key in found:
            raise ConfigError(
                f"{where} has the data set and subset of another file",
                got=found[key][0].source if found[key] else where,
                expected="one file for each",
                fix="remove one of the two",
            )
        found[key] = list(templates)
    if not found:
        raise ConfigError(
            "There are no templates",
            got=str(path),
            expected=f"a folder of DATASET/{FILE_NAME}, promptsource's .tar.gz, or a .yaml file",
            fix="correct the path",
        )
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or "")))


def _files(root: epath.Path) -> Iterator[tuple[str, bytes]]:
    """Yields (where it is, content) of each file."""
    if root.is_dir():
        # User spaces of promptsource, such as `Zaid/coqa_expanded`, may have subsets below them.
        for depth in range(4):
            for path in sorted(root.glob("/".join(["*"] * depth + [FILE_NAME]))):
                yield str(path), _checked(path.read_bytes(), str(path))
        return
    if not is_file(root):
        raise ConfigError(
            "The templates do not exist",
            got=str(root),
            expected="a folder, an archive or a YAML file",
            fix="correct the path",
            name=root.name,
            candidates=[p.name for p in root.parent.iterdir()] if root.parent.is_dir() else [],
        )
    if root.name.endswith(_ARCHIVE_SUFFIXES):
        yield from _members(root)
    elif root.name.endswith(_YAML_SUFFIXES):
        yield str(root), _checked(root.read_bytes(), str(root))
    else:
        raise ConfigError(
            "The templates are in a file of another kind",
            got=str(root),
            expected=f"a name that ends in {', '.join((*_YAML_SUFFIXES, *_ARCHIVE_SUFFIXES))}",
            fix="name a YAML file, or promptsource's archive",
        )


def _members(archive: epath.Path) -> Iterator[tuple[str, bytes]]:
    """Yields the files of an archive; what they are called leads nowhere, since nothing is written."""
    total = 0
    try:
        with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|gz") as members:
            for member in members:
                # A small archive may hold gigabytes of zeros, which skipping a member would unpack too.
                total += member.size
                if total > _ARCHIVE_BYTES:
                    raise _too_large(f"{archive}", _ARCHIVE_BYTES)
                if member.isfile() and member.name.rpartition("/")[2] == FILE_NAME:
                    where, file = f"{archive}/{member.name}", members.extractfile(member)
                    if file is not None:
                        yield where, _checked(file.read(), where)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ConfigError(
            f"{archive} is no complete archive ({error})",
            got=archive.name,
            expected="a .tar.gz file",
            fix="download or copy the file again",
        ) from error


def _checked(content: bytes, where: str) -> bytes:
    """Returns the content of a file, if it is not too large to be one of templates."""
    if len(content) > _FILE_BYTES:
        raise _too_large(where, _FILE_BYTES)
    return content


def _too_large(where: str, limit: int) -> ConfigError:
    """The error for what is no file of templates."""
    return ConfigError(
        f"{where} is too large",
        got=f"more than {limit:,} bytes",
        expected="templates, which are short",
        fix="name a file of templates, or divide it",
    )


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data, which also takes promptsource's two tags, and no key twice."""


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    """Returns a mapping; of a key that is there twice, PyYAML would keep one silently."""
    # A tag of a mapping may be written before something else, which this refuses.
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep=True)  # pyright: ignore[reportArgumentType]
    if len(mapping) != len(node.value):
        keys = [loader.construct_object(key) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), keys[0])
        raise yaml.constructor.ConstructorError(
            None, None, f"the key {twice!r} is there twice", node.start_mark
        )
    return mapping


for _tag in ("!Template", "!TemplateMetadata", "tag:yaml.org,2002:map"):
    _Loader.add_constructor(_tag, _mapping)


def _load(content: bytes, where: str) -> Any:
    """Returns what a YAML file holds."""
    text = lines.decode(content, where=where)
    try:
        return yaml.load(text, _Loader)
    # Brackets nested thousands deep, and dates that are none.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        line = (text.splitlines()[mark.line :] or [""])[0].strip() if mark else where
        raise ConfigError(
            f"{where}{f':{mark.line + 1}' if mark else ''} cannot be read ({problem})",
            got=lines.shorten(line),
            expected="YAML without tags other than !Template and !TemplateMetadata",
            fix="correct the file",
        ) from error


# A file is asked for by every task of its data set.
@functools.lru_cache(maxsize=1024)
def _parse(content: bytes, where: str) -> tuple[Key, tuple[Template, ...]]:
    """Returns whose templates a file holds, and these."""
    found = _load(content, where)
    entries = found.get("templates") if isinstance(found, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(
            f"{where} holds no templates",
            got=reprlib.repr(found),
            expected="`dataset: NAME` and `templates:`, with a !Template under each id",
            fix="correct the file",
        )
    for key in ("dataset", "subset"):
        _check(found.get(key), str, f"{where} has a {key!r}", optional=key == "subset")
    templates = [_template(str(key), entry, where) for key, entry in entries.items()]
    names = [template.name for template in templates]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"{where} has two templates of one name",
            got=twice,
            expected="names of their own, of which the tasks' names are made",
            fix="rename one of the two",
        )
    ordered = sorted(templates, key=lambda template: template.name)
    return (found["dataset"], found.get("subset")), tuple(ordered)


_FIELDS = ("id", "name", "jinja", "answer_choices", "metadata", "reference", "task_template")
_METADATA = ("original_task", "choices_in_prompt", "metrics", "languages")


def _template(key: str, entry: Any, where: str) -> Template:
    """Returns one template; `key` is its id."""
    what = f"{where}: template {key}"
    _check(entry, dict, what)
    what = f"{where}: template {entry.get('name') or key!r}"
    metadata = entry.get("metadata") or {}
    _check(metadata, dict, f"{what} has 'metadata'")
    for part, allowed in ((entry, _FIELDS), (metadata, _METADATA)):
        unknown = next((name for name in part if name not in allowed), None)
        if unknown is not None:
            raise ConfigError(
                f"{what} has an unknown field",
                got=unknown,
                expected=f"one of {', '.join(allowed)}",
                fix="correct the name, or remove the field",
                name=str(unknown),
                candidates=allowed,
            )
    for name in ("name", "jinja", "answer_choices"):
        _check(entry.get(name), str, f"{what} has {name!r}", optional=name == "answer_choices")
    for name in ("original_task", "choices_in_prompt"):
        _check(metadata.get(name), bool, f"{what} has {name!r}", optional=True)
    metrics = metadata.get("metrics") or []
    _check(metrics, list, f"{what} has 'metrics'")
    for metric in metrics:
        _check(metric, str, f"{what} has, among its metrics,")
    return Template(
        name=entry["name"],
        id=str(entry.get("id") or key),
        jinja=entry["jinja"],
        answer_choices=entry.get("answer_choices"),
        original_task=metadata.get("original_task"),
        choices_in_prompt=metadata.get("choices_in_prompt"),
        metrics=tuple(metrics),
        source=where,
    )


_KINDS = {str: "text", bool: "true or false", list: "a list", dict: "fields with their values"}


def _check(value: Any, kind: type, what: str, *, optional: bool = False) -> None:
    """Raises ConfigError unless a value has its type; text may not be empty."""
    if (optional and value is None) or (isinstance(value, kind) and (value or kind is not str)):
        return
    raise ConfigError(
        f"{what} of another kind",
        # Aliases of YAML may make a few lines longer than any memory.
        got=lines.shorten(reprlib.repr(value)),
        expected=f"{_KINDS[kind]}; what YAML reads as something else, such as Yes, is put in quotes",
        fix="correct the file",
    )
