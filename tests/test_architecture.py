"""The rules of the code base that a reader may rely on: who imports whom, and how large things get."""

import ast
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.helpers import REPO

PACKAGE = "prompt_tuning"
FILE_LINES = 400
FUNCTION_LINES = 60
# The run itself is read top to bottom, so it may be longer than what it calls.
LONGER_FUNCTIONS = {("prompt_tuning/train.py", "train"): 120}
TRAIN_STEP_LINES = 45
FORBIDDEN_STEMS = frozenset({"util", "utils", "common", "misc", "helper", "helpers"})

# The floors of the house, top to bottom. A room may import itself and whatever lies on a lower floor, nothing else.
FLOORS = (
    "launch __main__ __init__",
    "cli",
    "commands tuning",
    "lm_eval",
    "train evaluate infer predict",
    "config",
    "run",
    "models",
    "prompts",
    "checkpoints training tasks",
    "partitioning params decoding data",
    "ladder tree",
    "errors types",
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
TOP_LEVEL_ENTRIES = 27

# External packages with one home or a few.
HOMES = {
    "gin": "config",
    "seqio": "data tasks config commands/tasks commands/plan",
    "tensorflow": "data tasks commands/tasks",
    "tensorflow_datasets": "data tasks",
    "tensorflow_text": "data tasks",
    "sentencepiece": "data launch",
    "apache_beam": "commands/tasks",
    "flax": "models prompts partitioning training checkpoints",
    "optax": "training run commands/recycle",
    "orbax": "checkpoints",
    "tensorstore": "checkpoints launch",
    "msgpack": "launch",
    "safetensors": "checkpoints launch",
    "torch": "checkpoints launch",
    "peft": "launch",
    "transformers": "launch",
    "clu": "training",
    "tqdm": "training",
    "tensorboard": "commands/sweep",
    "filelock": "commands/sweep checkpoints",
    "ray": "commands/sweep",
    "jinja2": "commands/report data/templates",
    "yaml": "data/templates commands/push",
    "matplotlib": "commands/report commands/inspect commands/demo",
    "datasets": "data",
    "huggingface_hub": "checkpoints commands/push",
    "lm_eval": "lm_eval",
    "wandb": "training",
    "mlflow": "training",
    "scipy": "commands/report commands/inspect data",
    "starlette": "commands/serve launch",
    "sse_starlette": "commands/serve",
    "uvicorn": "commands/serve launch",
    "httpx2": "launch",
    "prometheus_client": "commands/serve",
    "pydantic": "commands/serve",
}
# These belong to everyone.
BASE_EXTERNAL = frozenset({"jax", "numpy", "jaxtyping", "absl", "etils", "rich"})
# clu loads TensorFlow, so the training package may import it in one place, inside a function.
LAZY_ONLY = {("training/summary.py", "clu")}
# An extra, imported inside functions only.
OPTIONAL = frozenset(
    {"torch", "peft", "transformers", "datasets", "huggingface_hub", "wandb", "mlflow"}
)
# The authors' module names, kept importable, live in data/ and are tasks.
TASK_ALIASES = frozenset({"data/glue.py", "data/super_glue.py"})


@dataclass(frozen=True)
class Import:
    """One imported module: the file, the line, its absolute dotted name, and whether importing the file runs it."""

    file: str
    line: int
    name: str
    at_import: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


def _package_files() -> dict[str, pathlib.Path]:
    """Every module of the installed package, tasks and launch included, by its path inside the package."""
    root = REPO / PACKAGE
    # rglob does not follow symlinked folders, so tasks and launch are walked by their own names.
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for linked in ("tasks", "configs", "launch"):
        folder = REPO / linked
        files |= {f"{linked}/{p.relative_to(folder).as_posix()}": p for p in folder.rglob("*.py")}
    return dict(sorted(files.items()))


def _all_files() -> list[pathlib.Path]:
    """Every Python file of the repository, each once."""
    return sorted([REPO / "setup.py", *_package_files().values(), *(REPO / "tests").rglob("*.py")])


def _parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _import_nodes(tree: ast.AST, at_import: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Import statements below `tree`, with whether they run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, at_import
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from _import_nodes(node, at_import and not inside and not typing_only)


def _imports(key: str, path: pathlib.Path) -> list[Import]:
    """The imports of one file; `from prompt_tuning import x` counts as `prompt_tuning.x`."""
    here = [PACKAGE, *pathlib.PurePosixPath(key).parent.parts]
    found = []
    for node, at_import in _import_nodes(_parse(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert isinstance(node, ast.ImportFrom)
            base = node.module or ""
            if node.level:
                base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [base])])
            names = [f"{base}.{alias.name}" for alias in node.names] if base == PACKAGE else [base]
        found += [Import(key, node.lineno, name, at_import) for name in names]
    return found


def _room_of(key: str) -> str:
    """The room that a file is in, or is: the first part of its path."""
    return pathlib.PurePosixPath(key).parts[0].removesuffix(".py")


def _wrong(item: Import) -> bool:
    """Whether `item` runs up, or takes an external package out of its home."""
    top, _, rest = item.name.partition(".")
    here = _room_of(item.file)
    if top == PACKAGE:
        there = rest.split(".")[0]
        if there == "tasks" and here != "tasks":
            return item.file not in TASK_ALIASES
        return there not in ("", here) and FLOOR_OF[there] <= FLOOR_OF[here]
    if top in sys.stdlib_module_names or top in BASE_EXTERNAL:
        return False
    homes = HOMES.get(top, "").split()
    if not any(item.file == f"{home}.py" or item.file.startswith(f"{home}/") for home in homes):
        return True
    if top == "clu":
        return (item.file, top) not in LAZY_ONLY or item.at_import
    return top in OPTIONAL and item.at_import


ALL_IMPORTS = [item for key, path in _package_files().items() for item in _imports(key, path)]


def test_every_room_is_on_a_floor():
    rooms = {_room_of(key) for key in _package_files()} - {"configs"}
    assert rooms == set(FLOOR_OF)


def test_the_top_level_stays_small():
    listed = subprocess.run(
        ["git", "ls-files", "-z", PACKAGE], cwd=REPO, capture_output=True, text=True, check=False
    )
    entries = {name.split("/")[1] for name in listed.stdout.split("\0") if name}
    if not entries:
        pytest.skip("not a git checkout")
    assert len(entries) <= TOP_LEVEL_ENTRIES, sorted(entries)


def test_no_import_runs_up():
    assert len(ALL_IMPORTS) > 0
    wrong = [str(item) for item in ALL_IMPORTS if _wrong(item)]
    assert not wrong, "\n".join(["imports that run up, or leave a package's home:", *wrong])


@pytest.mark.parametrize(
    ("file", "name", "at_import", "wrong"),
    [
        ("models/t5.py", "flax.linen", True, False),
        ("models/t5.py", "prompt_tuning.prompts.config", True, False),
        ("models/t5.py", "optax", True, True),
        ("prompts/prompt.py", "prompt_tuning.models.t5", True, True),
        ("checkpoints/manager.py", "prompt_tuning.training.state", False, True),
        ("training/step.py", "prompt_tuning.models.t5", True, True),
        ("training/summary.py", "clu.metric_writers", False, False),
        ("training/summary.py", "clu.metric_writers", True, True),
        ("training/step.py", "clu.metric_writers", False, True),
        ("checkpoints/formats/torch_files.py", "torch", False, False),
        ("checkpoints/formats/torch_files.py", "torch", True, True),
        ("train.py", "tensorflow", False, True),
        ("train.py", "gin", False, True),
        ("train.py", "prompt_tuning.evaluate", True, True),
        ("config/resolve.py", "gin", True, False),
        ("config/resolve.py", "prompt_tuning.train", True, True),
        ("run/start.py", "prompt_tuning.commands.export", False, True),
        ("data/batches.py", "prompt_tuning.tasks.glue", False, True),
        ("data/glue.py", "prompt_tuning.tasks.glue", True, False),
        ("params/layouts.py", "flax", True, True),
    ],
)
def test_the_import_rule_tells_right_from_wrong(file, name, at_import, wrong):
    assert _wrong(Import(file, 1, name, at_import)) is wrong


def _module_name(key: str) -> str:
    dotted = key.removesuffix(".py").replace("/", ".")
    return f"{PACKAGE}.{dotted}".removesuffix(".__init__")


def test_no_import_cycles():
    """Modules that import one another while being imported work only in one order."""
    modules = {_module_name(key): key for key in _package_files()}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for item in ALL_IMPORTS:
        target = item.name if item.name in modules else item.name.rpartition(".")[0]
        source = _module_name(item.file)
        if item.at_import and target in modules and target not in (source, PACKAGE):
            graph[source].add(target)
    assert sum(map(len, graph.values())) > 0
    while leaves := [name for name, targets in graph.items() if not targets]:
        for name in leaves:
            del graph[name]
        for targets in graph.values():
            targets.difference_update(leaves)
    assert not graph, f"cycle among {sorted(graph)}"


def test_every_third_party_import_is_a_declared_requirement():
    """A package that only happens to be installed through another one may vanish with its next release."""
    distribution = {
        "absl": "absl-py",
        "gin": "gin-config",
        "mlflow": "mlflow-skinny",
        "orbax": "orbax-checkpoint",
        "yaml": "pyyaml",
    }
    text = (REPO / "setup.py").read_text(encoding="utf-8")
    declared = {
        re.split(r"[\[<>=]", item)[0]
        for item in re.findall(r'"([a-z0-9_\-\[\]]+[<>=][^"]*)"', text)
    }
    tops = (
        {item.name.partition(".")[0] for item in ALL_IMPORTS} - sys.stdlib_module_names - {PACKAGE}
    )
    assert len(tops) > 0
    missing = {top for top in tops if distribution.get(top, top).replace("_", "-") not in declared}
    assert not missing, f"not in setup.py: {sorted(missing)}"


def test_files_and_functions_stay_short():
    long_files, long_functions, functions = [], [], 0
    files = _all_files()
    for path in files:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(REPO).as_posix()
        if (lines := len(text.splitlines())) > FILE_LINES:
            long_files.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text, filename=name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions += 1
                limit = LONGER_FUNCTIONS.get((name, node.name), FUNCTION_LINES)
                if (lines := _code_lines(node)) > limit:
                    long_functions.append(f"{name}:{node.lineno} {node.name}: {lines} lines")
    assert len(files) > 0 and functions > 0
    assert not long_files + long_functions, "\n".join(long_files + long_functions)


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from `def` to its end, without its docstring: a long explanation is not a long function."""
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def test_the_train_step_is_one_short_function():
    tree = _parse(REPO / PACKAGE / "training" / "step.py")
    makers = [
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "make_train_step"
    ]
    assert len(makers) == 1, "training/step.py defines make_train_step"
    inner = [
        n for n in ast.walk(makers[0]) if isinstance(n, ast.FunctionDef) and n is not makers[0]
    ]
    assert len(inner) > 0, "make_train_step returns a function it defines"
    steps = {n.name: (n.end_lineno or 0) - n.lineno + 1 for n in inner}
    assert max(steps.values()) <= TRAIN_STEP_LINES, steps


def test_no_file_is_named_for_nothing_in_particular():
    names = [path.relative_to(REPO).as_posix() for path in _all_files()]
    assert len(names) > 0
    bad = [
        n
        for n in names
        if pathlib.PurePosixPath(n).stem in FORBIDDEN_STEMS and n != "tests/helpers.py"
    ]
    assert not bad, bad


def test_every_file_compiles():
    files = _all_files()
    assert len(files) > 0
    for path in files:
        compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True)


def test_importing_never_edits_jax_config():
    """Settings of the process belong to the command line: a library that changes them surprises its importer."""
    statements, wrong = 0, []
    for key, path in _package_files().items():
        for node in _executed_at_import(_parse(path)):
            statements += 1
            if isinstance(node, ast.Call) and re.search(
                r"\bconfig\.update$", ast.unparse(node.func)
            ):
                wrong.append(f"{key}:{node.lineno}")
    assert statements > 0
    assert not wrong, wrong


def _executed_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below `node` that run when its module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _executed_at_import(child)


LIGHT_ROOMS = tuple("models prompts decoding partitioning training params".split())


def _loaded_by(modules: list[str]) -> set[str]:
    """Top-level names in `sys.modules` after a fresh interpreter imported `modules`."""
    code = f"import sys, {', '.join(modules)}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_models_to_training_run_without_tensorflow_seqio_and_gin():
    modules = [_module_name(key) for key in _package_files() if _room_of(key) in LIGHT_ROOMS]
    assert len(modules) > len(LIGHT_ROOMS)
    assert {name.split(".")[1] for name in modules if "." in name} == set(LIGHT_ROOMS)
    loaded = _loaded_by(modules)
    assert {"jax", "flax", "optax", PACKAGE} <= loaded
    assert not loaded & {
        "tensorflow",
        "tensorflow_text",
        "tensorflow_datasets",
        "seqio",
        "gin",
        "clu",
    }


def test_the_command_line_loads_nothing_heavy_before_a_command_runs():
    loaded = _loaded_by([f"{PACKAGE}.cli", f"{PACKAGE}.__main__"])
    assert PACKAGE in loaded
    assert not loaded & {"jax", "flax", "numpy", "tensorflow", "seqio", "gin", "orbax"}
