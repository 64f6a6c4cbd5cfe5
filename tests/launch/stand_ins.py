"""Stand-ins for the programs that launchers call; each does with its words what the real one does with them."""

import pathlib

# What a gin value may hold and a shell, ssh, Go, YAML or Kubernetes might change.
AWKWARD = (
    "train",
    "--gin_file=models/t5_1_1_xxl_prompt.gin",
    "--gin.MODEL_DIR='gs://my-bucket/a run'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
    """--gin.CLASS_LABELS=["it's", 'say "hi"', '$HOME $(HOME) $$ ${HOME} `id`', 'a\\\\b', '* ~ ! # ; & | < > %s']""",
    "--gin.SENTENCE='''two\nlines,  two  spaces '''",
    '--gin_bindings=NAME = "é"',
    "--tfds_data_dir=",
)

# Writes its words down.
PROMPT_TUNING = """#!/usr/bin/env bash
printf '%s\\0' "$@" $'\\1' >>"$RECORD"
"""


def install(folder: pathlib.Path, **scripts: str) -> None:
    """Writes executables into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)


def programs(record: pathlib.Path) -> list[list[str]]:
    """The words of each run that the stand-in for prompt-tuning wrote down."""
    runs: list[list[str]] = [[]]
    for word in record.read_text(encoding="utf-8").split("\0")[:-1]:
        if word == "\1":
            runs.append([])
        else:
            runs[-1].append(word)
    return runs[:-1]


def expand_like_kubernetes(word: str, variables: dict[str, str]) -> str:
    """What a container gets for a word of its `command` or `args`: $$ is $, $(NAME) a variable that exists."""
    made, at = "", 0
    while at < len(word):
        if word[at] != "$" or at + 1 == len(word):
            made, at = made + word[at], at + 1
        elif word[at + 1] == "$":
            made, at = made + "$", at + 2
        elif word[at + 1] == "(" and ")" in word[at:]:
            end = word.index(")", at)
            name = word[at + 2 : end]
            made, at = made + variables.get(name, f"$({name})"), end + 1
        else:
            made, at = made + word[at : at + 2], at + 2
    return made
