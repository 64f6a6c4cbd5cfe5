"""From sweep files to cells: reads, combines, resolves each cell as its command would, and gives it a key."""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.commands.sweep.sweep import (
    COMMANDS,
    ENSEMBLE,
    OUTPUT_MACROS,
    SELECTOR,
    Cell,
    Change,
    Flag,
    Sweep,
    bound,
)
from prompt_tuning.config import files as config_files
from prompt_tuning.config import names, queries
from prompt_tuning.config import resolve as config
from prompt_tuning.config.flags import TRACKERS
from prompt_tuning.data import content
from prompt_tuning.errors import ConfigError, PromptTuningError

_SCALE_FILE = "prompt_tuning/configs/paper/scales/{}.gin"
_KEY_CHARACTERS = 16
# How a flag may name the sweep.
_SELECTORS = [SELECTOR.split(".", n)[-1] for n in range(SELECTOR.count(".") + 1)]
# What stands for the output folder while cells are checked.
_FOLDER = "output"


@dataclasses.dataclass(frozen=True)
class Expansion:
    """What sweep files come to.

    Attributes:
      cells: All cells, checked, with their keys; those of an ensemble behind their members.
      warnings: Texts for the user.
      restores: Checkpoints that cells start from, as `RestoreCheckpointConfig` -> one of the cells.
    """

    cells: tuple[Cell, ...]
    warnings: tuple[str, ...]
    restores: Mapping[Any, Cell]


@dataclasses.dataclass(frozen=True)
class Checked:
    """A cell that resolves.

    Attributes:
      cell: With its key.
      warnings: Of its run.
      has_prompt: Whether it trains a prompt.
      restore: What it starts from, `RestoreCheckpointConfig`; None if nothing is read.
    """

    cell: Cell
    warnings: tuple[str, ...] = ()
    has_prompt: bool = False
    restore: Any = None


def expand(
    files: Sequence[str],
    *,
    scale: str | None = None,
    flags: Sequence[Flag] = (),
    search_paths: Sequence[str] = (),
) -> Expansion:
    """Returns the cells of sweep files, after resolving every one of them and looking up its tasks.

    Args:
      files: Gin files, each with one sweep.
      scale: One of `sweep.SCALES`: a gin file of macros that is read before each of them. None reads none.
      flags: A flag that names a macro of the sweep's files or a parameter of `sweeps.Sweep` sets it there; any other is
        the last binding of every cell.
      search_paths: Folders of gin files.

    Raises:
      ConfigError: If a file, a name or a value is wrong, in any cell.
      DataError: If a task is unknown.
    """
    cells: list[Cell] = []
    warnings: list[str] = []
    restores: dict[Any, Cell] = {}
    digests: dict[tuple[str, ...], str | None] = {}
    for file in files:
        sweep, cell_flags = read_sweep(file, scale, flags, search_paths)
        combined = combine(sweep, scale, cell_flags, search_paths)
        checked = [check(cell, digests) for cell in combined]
        # What no cell reads is a slip of the pen; what some do not read is how axes work.
        notes = Counter(text for found in checked for text in set(found.warnings))
        warnings += [f"{sweep.name}: {text}" for text, n in notes.items() if n == len(checked)]
        # Where an axis changes nothing, as a seed for a model that is not trained, the first value stands for all.
        unique: dict[str, Checked] = {}
        for found in checked:
            unique.setdefault(found.cell.key, found)
            if found.restore and found.restore.path:
                restores.setdefault(found.restore, found.cell)
        cells += [found.cell for found in unique.values()]
        cells += _ensembles(sweep, [found.cell for found in unique.values() if found.has_prompt])
    return Expansion(tuple(cells), tuple(warnings), restores)


def read_sweep(
    file: str, scale: str | None, flags: Sequence[Flag], search_paths: Sequence[str] = ()
) -> tuple[Sweep, list[Flag]]:
    """Returns the sweep of a file, and the flags that are for its cells."""
    files = ([_SCALE_FILE.format(scale)] if scale else []) + [file]
    macros = {
        b.selector for b in _bindings(config_files.read(files, (), search_paths)) if not b.arg
    }
    own, others = [], []
    for flag in flags:
        (binding,) = _bindings(config_files.read([], [flag]))
        is_own = binding.selector in (_SELECTORS if binding.arg else macros)
        (own if is_own else others).append(flag)
    # A sweep is what gin files describe here alone; no run reads one.
    names.add("prompt_tuning", "sweeps.Sweep", Sweep)
    values = queries.query_literals(config_files.read(files, own, search_paths), SELECTOR)
    missing = [name for name in ("name", "axes") if name not in values]
    if missing:
        raise ConfigError(
            f"{file} describes no sweep",
            got=f"no sweeps.Sweep.{missing[0]}",
            expected="bindings of sweeps.Sweep.name and sweeps.Sweep.axes",
            fix="name a sweep file, or add them (docs/use/experiments.md)",
        )
    return Sweep(**values), others


def combine(
    sweep: Sweep, scale: str | None, flags: Sequence[Flag], search_paths: Sequence[str] = ()
) -> list[Cell]:
    """Returns every combination of a sweep's values, the last axis fastest, without keys."""
    read = functools.partial(_change_of, search_paths=search_paths)
    common, last = read({"bindings": sweep.bindings}), read({"gin_files": sweep.gin_files})
    # Flags override all else, as in a run.
    last += Change((), tuple(flags))
    tracked = [name for name in TRACKERS.values() if any(f"@{name}" in text for text, _ in flags)]
    folders = tuple(_absolute(folder) for folder in search_paths)
    cells = []
    for combination in itertools.product(*(axis.items() for axis in sweep.axes.values())):
        values = [value for _, value in combination]
        evaluations = dict(sweep.evaluations)
        for value in values:
            evaluations |= value.get("evaluations", {})
        commands = [value["command"] for value in values if "command" in value]
        axes = {a: str(name) for a, (name, _) in zip(sweep.axes, combination, strict=True)}
        # In gin, so that a cell is one of its group wherever its line runs.
        grouped = [
            bound(f"{name}.{field}", value)
            for name in tracked
            for field, value in (("group", sweep.name), ("labels", axes))
        ]
        cells.append(
            Cell(
                sweep=sweep.name,
                title=sweep.title,
                scale=scale,
                axes=axes,
                command=commands[-1] if commands else COMMANDS[0],
                run=sum(map(read, values), common) + Change((), tuple(grouped)) + last,
                evaluations={name: read(change) for name, change in evaluations.items()},
                search_paths=folders,
            )
        )
    return cells


def resolve(cell: Cell, output_dir: str, change: Change | None = None) -> config.ResolvedConfig:
    """Returns the run of a cell as `prompt-tuning train` or `prompt-tuning eval` would resolve it.

    Args:
      cell: A cell; an ensemble has the run of its first member.
      output_dir: Its output folder.
      change: What is added to the run, for an evaluation.
    """
    from prompt_tuning import evaluate, train

    command = "eval" if cell.command == "eval" else "train"
    runnable = evaluate.evaluate if command == "eval" else train.train
    run = cell.run + change if change else cell.run
    run = run + Change((), (bound(OUTPUT_MACROS[command], output_dir),))
    parsed = config_files.read(run.gin_files, run.flags, cell.search_paths)
    return config.resolve(parsed, runnable, command=command)


def check(cell: Cell, digests: dict[tuple[str, ...], str | None] | None = None) -> Checked:
    """Returns a cell with its key, after building everything that its run and its evaluations describe.

    The key follows from settings and from content: of the tasks, the vocabulary and the checkpoint it starts from, as
    far as they are on this machine. What was edited is another cell, which has not run.

    Args:
      cell: The cell.
      digests: Of files that other cells read too; new ones are added. None where there is one cell.

    Raises:
      ConfigError, DataError: Which name the cell.
    """
    digests = {} if digests is None else digests
    try:
        if cell.command == "count":
            model, regex = countable(cell)
            prompt_length = model.prompt.length if model.prompt else 0
            read = [dataclasses.asdict(model.config), prompt_length, list(regex)]
            return Checked(_with_key(cell, read))
        resolved = resolve(cell, _FOLDER)
        arguments = resolved.arguments()
        reads = [resolved.identity(), *_contents(arguments, digests)]
        changes = {name: resolve(cell, _FOLDER, c) for name, c in cell.evaluations.items()}
        changed = {
            name: [c.identity(), *_contents(c.arguments(), digests)] for name, c in changes.items()
        }
    except PromptTuningError as error:
        # An error's text is complete; its class says what it is about.
        raise Exception.__new__(type(error), f"{cell.sweep} {cell.label}: {error}") from error
    trains = cell.command == "train"
    return Checked(
        _with_key(cell, {"": reads, **changed}),
        resolved.warnings,
        trains and arguments["model"].prompt is not None,
        _restore_of(arguments),
    )


def _contents(
    arguments: Mapping[str, Any], digests: dict[tuple[str, ...], str | None]
) -> list[Any]:
    """What the data of a run, its vocabulary and the weights that it starts from consist of; looks its tasks up."""
    from prompt_tuning import ladder
    from prompt_tuning.data import context, made_from

    vocabulary = arguments["model"].output_vocabulary
    path = getattr(_restore_of(arguments), "path", None)
    # Object stores are asked by the run itself.
    weights = (str(ladder.locate(path)),) if path and "://" not in path else ()
    if weights and weights not in digests:
        digests[weights] = content.of_folder(*weights)
    with context.overriding(vocabulary=vocabulary):
        return [
            digests.get(weights),
            made_from.describe_vocabulary(vocabulary),
            *(
                made_from.describe_dataset(cfg, digests)
                for cfg in (arguments.get("train_dataset_cfg"), scored_data(arguments))
                if cfg
            ),
        ]


def _restore_of(arguments: Mapping[str, Any]) -> Any:
    """What a run starts from, `RestoreCheckpointConfig` or None."""
    found = arguments.get("checkpoint_cfg")
    return found.restore if found else arguments["restore_checkpoint_cfg"]


def check_checkpoints(restores: Mapping[Any, Cell]) -> None:
    """Opens every checkpoint that cells start from, which reads its index alone.

    Args:
      restores: `Expansion.restores`.

    Raises:
      CheckpointError: If one is missing; names a cell that needs it.
    """
    from prompt_tuning.run import start

    for restore, cell in restores.items():
        try:
            start.open_initial(restore, from_scratch=False)
        except PromptTuningError as error:
            raise Exception.__new__(type(error), f"{cell.sweep} {cell.label}: {error}") from error


def countable(cell: Cell) -> tuple[Any, Sequence[str]]:
    """Returns the model of a cell and what it would train; neither data nor weights have to be there."""
    from prompt_tuning.commands.plan import run_step

    parsed = config_files.read(cell.run.gin_files, cell.run.flags, cell.search_paths)
    names = ("model", "trainable_regex")
    _, found = queries.query_arguments(parsed, names, run_step.STAND_INS, run_step.MAY_BE_UNSET)
    return found["model"], found.get("trainable_regex", (".*",))


def scored_data(arguments: Mapping[str, Any]) -> Any:
    """Returns the dataset that the score of a run comes from; None if it is evaluated on none."""
    return arguments.get("infer_eval_dataset_cfg") or arguments.get("dataset_cfg")


def _ensembles(sweep: Sweep, cells: Sequence[Cell]) -> list[Cell]:
    """The cells in which the prompts of others vote: one for each combination of the axes besides `ensemble_over`."""
    axis = sweep.ensemble_over
    if axis is None:
        return []
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        others = tuple(value for name, value in cell.axes.items() if name != axis)
        groups.setdefault(others, []).append(cell)
    return [
        _with_key(
            dataclasses.replace(
                members[0],
                axes={**members[0].axes, axis: ENSEMBLE},
                command=ENSEMBLE,
                evaluations={},
                members=tuple(member.key for member in members),
            ),
            None,
        )
        for members in groups.values()
        if len(members) > 1
    ]


def _with_key(cell: Cell, read: Any) -> Cell:
    """The cell with the digest of what its run and its evaluations read."""
    text = json.dumps([cell.command, read, sorted(cell.members)], sort_keys=True, default=str)
    return dataclasses.replace(cell, key=content.of_bytes(text)[:_KEY_CHARACTERS])


def _change_of(value: Mapping[str, Any], search_paths: Sequence[str]) -> Change:
    """The files and bindings of an axis value or of an evaluation.

    Values become gin text, and names of gin files such that mean the same in any folder, on any machine with this
    package.
    """
    files = []
    for name in value.get("gin_files", ()):
        path = config_files.find_file(name, search_paths, where="sweeps.Sweep")
        inside = pathlib.Path(path)
        if inside.is_relative_to(config_files.PACKAGE_CONFIGS):
            relative = inside.relative_to(config_files.PACKAGE_CONFIGS).as_posix()
            files.append(f"prompt_tuning/configs/{relative}")
        else:
            files.append(_absolute(str(path)))
    return Change(tuple(files), tuple(itertools.starmap(bound, value.get("bindings", {}).items())))


def _absolute(path: str) -> str:
    """A path that means the same in any folder."""
    return path if "://" in path else str(pathlib.Path(path).absolute())


def _bindings(parsed: config_files.Parsed) -> list[config_files.Binding]:
    """The bindings of what was read."""
    return [s for s in parsed.statements if isinstance(s, config_files.Binding)]
