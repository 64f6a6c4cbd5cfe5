"""What the documents tell a reader to type or open exists."""

import ast
import collections
import csv
import pathlib
import re
import subprocess

import pytest

from prompt_tuning.commands.report import rows
from prompt_tuning.commands.sweep.results import TABLE
from prompt_tuning.config import files
from tests.helpers import REPO
from tests.test_architecture import FLOORS

README = REPO / "README.md"
INDEX = REPO / "docs/README.md"
ARCHITECTURE = REPO / "docs/architecture.md"
_NAMED = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
DOCUMENTS = sorted([*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")])


def _fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of one language; "" for those that name none."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for found, block in blocks if found == language]


def _make_targets() -> set[str]:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))


def test_every_make_command_is_a_target():
    compared = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        typed = [line for block in _fenced(text, "bash") for line in block.splitlines()]
        for command in [*typed, *re.findall(r"`(make [a-z-]+)`", text)]:
            if command.startswith("make "):
                compared += 1
                assert command.split()[1] in _make_targets(), f"{document.name}: {command}"
    assert compared >= 2


def test_the_first_two_commands_are_demo_and_test():
    blocks = _fenced(README.read_text(encoding="utf-8"), "bash")
    assert blocks[0].split("\n")[:2] == ["make demo", "make test"]


def test_every_gin_file_resolves():
    compared = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for name in re.findall(r"--gin_file[= ]\"?'?([\w./-]+\.gin)", text):
            # A file that the reader writes, as the page shows it, and the one that a run leaves.
            if (f"`{name}`" in text and _fenced(text, "gin")) or name.endswith("/config.gin"):
                continue
            compared += 1
            inside = name.removeprefix("prompt_tuning/").removeprefix("configs/")
            files.find_file(f"prompt_tuning/configs/{inside}", where=document.name)
    assert compared > 0


def test_every_macro_on_a_command_line_is_bound_in_a_gin_file():
    known = set()
    for path in (REPO / "configs").rglob("*.gin"):
        known |= set(
            re.findall(
                r"^([A-Z][A-Z0-9_]*)\s*=|%([A-Z][A-Z0-9_]*)", path.read_text(), flags=re.MULTILINE
            )
        )
    names = {name for pair in known for name in pair if name}
    compared = 0
    for document in DOCUMENTS:
        typed = "".join(_fenced(document.read_text(encoding="utf-8"), "bash"))
        for macro in re.findall(r"--gin\.([A-Z][A-Z0-9_]*)=", typed):
            compared += 1
            assert macro in names, f"{document.name}: {macro}"
    assert compared > 0


def test_bash_blocks_parse():
    blocks = [block for d in DOCUMENTS for block in _fenced(d.read_text(encoding="utf-8"), "bash")]
    assert len(blocks) > 0
    for block in blocks:
        done = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{block}"


def _tree_paths(block: str) -> list[str]:
    """The paths drawn in an indented tree of the form `name  comment`."""
    stack: list[tuple[int, str]] = []
    paths = []
    for line in block.splitlines():
        name = line.split()[0]
        indent = len(line) - len(line.lstrip())
        stack = [(depth, parent) for depth, parent in stack if depth < indent]
        paths.append("".join(parent for _, parent in stack) + name)
        if name.endswith("/"):
            stack.append((indent, name))
    return paths


def test_every_path_in_the_tree_exists():
    blocks = [
        b for b in _fenced(README.read_text(encoding="utf-8"), "") if b.startswith("prompt_tuning/")
    ]
    assert len(blocks) == 1
    paths = _tree_paths(blocks[0])
    assert len(paths) > 10
    missing = [path for path in paths if not (REPO / path).exists()]
    assert not missing, missing


def test_every_room_of_the_package_is_in_the_tree():
    block = next(
        b for b in _fenced(README.read_text(encoding="utf-8"), "") if b.startswith("prompt_tuning/")
    )
    named = [path.rstrip("/") for path in _tree_paths(block)]
    assert len(named) == len(set(named))
    rooms = [p for p in (REPO / "prompt_tuning").iterdir() if not p.name.startswith("__")]
    assert len(rooms) > 10
    # The three links have lines of their own, where they lead to.
    assert not [
        p.name
        for p in rooms
        if (p.name if p.is_symlink() else f"prompt_tuning/{p.name}") not in named
    ]


def _links(document: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """The file and the heading of every link inside the repository."""
    found = re.findall(
        r"\]\((?!https?:|mailto:)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")
    )
    return [(document.parent / path if path else document, heading) for path, heading in found]


def _anchors(document: pathlib.Path) -> set[str]:
    """The headings of a page as links spell them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPO).as_posix())
def test_links_resolve(document: pathlib.Path):
    for target, heading in _links(document):
        assert target.exists(), f"{document.name}: {target}"
        assert not heading or heading in _anchors(target), f"{document.name}: {target}#{heading}"


def test_every_page_is_in_the_index_once():
    pages = [path for path in DOCUMENTS if path.is_relative_to(REPO / "docs") and path != INDEX]
    named = [target.resolve() for target, _ in _links(INDEX)]
    assert len(pages) > 20
    assert sorted(named) == sorted(page.resolve() for page in pages)


def test_every_page_that_the_repository_names_is_there():
    kinds = {".py", ".gin", ".ipynb", ".md", ".sh", ".toml", ""}
    named = collections.defaultdict(set)
    for folder in "configs docs launch notebooks prompt_tuning tasks tests .".split():
        paths = (REPO / folder).iterdir() if folder == "." else (REPO / folder).rglob("*")
        for path in paths:
            if path.suffix in kinds and path.is_file() and "ladder/" not in path.as_posix():
                text = path.read_text(encoding="utf-8", errors="ignore")
                for name in re.findall(r"(?<![\w./])docs/[\w/]+\.(?:md|csv|html|jsonl)\b", text):
                    named[name].add(path.relative_to(REPO).as_posix())
    assert len(named) > 10
    assert not {name: by for name, by in named.items() if not (REPO / name).is_file()}


def test_every_module_on_a_command_line_is_there():
    compared = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for module in re.findall(r"python -m (prompt_tuning[\w.]*\w)", text):
            # Of `launch.{tpu_vm,…}` this is the part before the brace.
            compared += 1
            path = REPO / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{document.name}: {module}"
    assert compared > 10


def _defined(path: pathlib.Path) -> set[str]:
    """The classes, functions and constants of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {n.name for n in ast.walk(tree) if isinstance(n, _NAMED)}
    targets = [t for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    return found | {target.id for target in targets if isinstance(target, ast.Name)}


def test_what_the_architecture_names_is_there():
    text = re.sub(r"\s+", " ", ARCHITECTURE.read_text(encoding="utf-8"))
    package = REPO / "prompt_tuning"
    # `write.py` after `checkpoints/prompt_files/source.py` is in the same folder.
    folder, paths, names = package, 0, 0
    for name, symbol in re.findall(r"`([\w/]+\.(?:py|gin))`(?: `(\w+)`)?", text):
        # What the reader writes, or a run.
        if re.search("[A-Z]{4}", name):
            continue
        path = next((p for p in (package / name, folder / name, REPO / name) if p.is_file()), None)
        assert path is not None, name
        folder, paths = path.parent, paths + 1
        if symbol:
            names += 1
            assert symbol in _defined(path), f"{name} has no {symbol}"
    assert paths > 50 and names > 40


def test_the_floors_are_drawn_as_they_are():
    (drawn,) = _fenced(ARCHITECTURE.read_text(encoding="utf-8"), "")
    floors = [set(re.split(r"\s{2,}", line)[0].split()) for line in drawn.splitlines()]
    assert floors == [set(floor.split()) for floor in FLOORS]


def test_ci_types_what_the_readme_says():
    block = _fenced(README.read_text(encoding="utf-8"), "bash")[0]
    typed = re.findall(r"^in_clone (.*)$", (REPO / ".ci/run").read_text(), flags=re.MULTILINE)
    assert typed[: len(block.splitlines())] == block.splitlines()


def test_the_summary_of_parity_is_that_of_its_rows():
    with (REPO / "docs/measured/parity.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["ok"] for row in rows} == {"yes"}
    page = (REPO / "docs/measured/parity.md").read_text(encoding="utf-8")
    assert f"All {len(rows)} rows hold" in page
    count = collections.Counter(row["comparison"].partition("/")[0] for row in rows)
    by_name = {row["comparison"]: row for row in rows}
    summary = re.findall(r"^\| `(\w+)/` \| [^|]* \| (\d+) \| (.*?) \| (.*?) \|", page, re.MULTILINE)
    assert {group: int(number) for group, number, _, _ in summary} == count
    for group, _, name, measured in summary:
        of_group = [r for r in rows if r["comparison"].startswith(f"{group}/")]
        shares = [float(r["measured"]) / (float(r["tolerance"]) or 1.0) for r in of_group]
        if name == "none: all equal":
            assert not any(shares), group
            continue
        nearest = by_name[f"{group}/{name}"]
        assert nearest["measured"] == measured
        assert float(measured) / float(nearest["tolerance"]) == max(shares)


@pytest.mark.parametrize("name", ["methods", "reproduction"])
def test_reports_are_drawn_from_every_row_that_was_measured(name):
    folder = REPO / "docs" / "measured" / name
    found = rows.read([str(folder)])
    lines = (folder / TABLE).read_text().splitlines()
    assert not found.notes and sum(len(sweep.cells) for sweep in found.sweeps) == len(lines)
