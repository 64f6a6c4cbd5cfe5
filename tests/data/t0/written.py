"""Templates and records of a few data sets of T0's, written for the tests."""

import json
import pathlib

YES_NO = "Yes ||| No"
# Data set, subset -> (template's name, its text, its answer choices, whether it asks the original task).
TEMPLATES = {
    ("super_glue", "rte"): [
        (
            "does it",
            "{{premise}} Is it so? {{hypothesis}} ||| {{answer_choices[label]}}",
            YES_NO,
            1,
        ),
        ("repeat", "Repeat: {{hypothesis}} ||| {{hypothesis}}", None, 0),
    ],
    ("super_glue", "copa"): [
        (f"n{i}", "{{premise}} or ||| {{answer_choices[label]}}", "{{choice1}} ||| {{choice2}}", 1)
        for i in range(10)
    ],
    ("hellaswag", None): [
        (
            "ending",
            "{{ctx}} {{['a', 'b'] | choice}} ||| {{answer_choices[label | int]}}",
            "{{endings | join('|||')}}",
            1,
        )
    ],
}


def write_templates(folder: pathlib.Path) -> str:
    """Writes the templates as promptsource's folder, and returns its path."""
    for (dataset, subset), templates in TEMPLATES.items():
        place = folder / dataset / (subset or "")
        place.mkdir(parents=True)
        lines = [f"dataset: {dataset}\n", f"subset: {subset or 'null'}\n", "templates:\n"]
        for number, (name, text, choices, is_original) in enumerate(templates):
            lines += [
                f"  id-{number}: !Template\n",
                f"    id: id-{number}\n",
                f"    name: {name}\n",
                f"    jinja: {json.dumps(text)}\n",
                f"    answer_choices: {json.dumps(choices)}\n",
                "    reference: ''\n",
                "    metadata: !TemplateMetadata\n",
                f"      original_task: {str(bool(is_original)).lower()}\n",
                "      choices_in_prompt: false\n",
                "      metrics: [Accuracy]\n",
            ]
        (place / "templates.yaml").write_text("".join(lines))
    return str(folder)


def rte(number: int) -> dict:
    """A record of RTE."""
    return {"premise": f"p{number}", "hypothesis": f"h{number}", "label": number % 2, "idx": number}


def hellaswag(number: int) -> dict:
    """A record with two to four endings."""
    endings = [f"e{i}" for i in range(2 + number % 3)]
    return {"ctx": f"c{number}", "endings": endings, "label": str(number % 2)}


def copa(number: int) -> dict:
    """A record of COPA."""
    return {"premise": f"p{number}", "choice1": "one", "choice2": "two", "label": number % 2}


def write_jsonl(path: pathlib.Path, rows: list) -> None:
    """Writes one record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_records(folder: pathlib.Path, num: int = 6) -> str:
    """Writes training and validation records of the data sets, and returns the folder."""
    for place, record in (
        ("super_glue/rte", rte),
        ("hellaswag", hellaswag),
        ("super_glue/copa", copa),
    ):
        for split, first in (("train", 0), ("validation", 100)):
            write_jsonl(folder / place / f"{split}.jsonl", [record(first + i) for i in range(num)])
    return str(folder)
