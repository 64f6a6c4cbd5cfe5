"""What the documents tell a reader to type or open exists."""

import pathlib
import re
import subprocess

import pytest

from prompt_tuning.config import files
from tests.helpers import REPO

README = REPO / "README.md"
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


def test_every_folder_of_the_package_is_in_the_tree():
    block = next(
        b for b in _fenced(README.read_text(encoding="utf-8"), "") if b.startswith("prompt_tuning/")
    )
    folders = [p for p in (REPO / "prompt_tuning").iterdir() if p.is_dir() and not p.is_symlink()]
    named = {path.rstrip("/") for path in _tree_paths(block)}
    compared = [f.name for f in folders if f.name != "__pycache__"]
    assert len(compared) > 0
    assert not [name for name in compared if f"prompt_tuning/{name}" not in named]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_resolve(document: pathlib.Path):
    for target in re.findall(
        r"\]\((?!https?:|#|mailto:)([^)#]+)", document.read_text(encoding="utf-8")
    ):
        assert (document.parent / target).exists(), f"{document.name}: {target}"
