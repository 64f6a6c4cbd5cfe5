"""Compares this project with a folder of reference numbers, and prints how far apart they are.

  python tests/golden/check.py DIR --format=json

DIR is in the layout that README.md describes; shapes and settings come from its meta.json. A folder with reference
numbers of T0 and T-Few (tests/parity/t0.py), or of adapters and other tuned parts (tests/parity/peft_family.py), has
none. Every comparison is a row: name, measured difference, tolerance,
ok. The exit status is 0 only if every row is ok.
"""

import argparse
import csv
import importlib
import io
import json
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

REPO = pathlib.Path(__file__).resolve().parents[2]
VOCABULARY = pathlib.Path("data") / "t5_tokenizer" / "spiece.model"
# A folder without meta.json that has one of these holds reference numbers of T0 and T-Few.
T0_FILES = (
    "mixtures.json",
    "renders.jsonl",
    "rank_scores.json",
    "tfew_losses.json",
    "few_shot",
    "p3_cache",
    "p3_card_examples.json",
    "t03b_ia3_finish.json",
)
# One that has one of these folders holds those of adapters and other tuned parts.
FAMILY_FOLDERS = ("A_peft", "B_authors", "B_prefix_full", "C_methods")

# One that has one of these holds those of T5Gemma and of MADLAD-400: folders of models, and counts of parameters.
GEMMA_CASES = ("D_t5gemma", "E_t5gemma2", "G_madlad")
GEMMA_COUNTS = "F_counts.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparisons and prints them; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=pathlib.Path, help="folder of reference numbers")
    parser.add_argument("--format", choices=tuple(_FORMATS), default="table")
    parser.add_argument("--vocabulary", type=pathlib.Path, help="T5's SentencePiece model")
    parser.add_argument(
        "--huggingface", action="store_true", help="compare with transformers and PEFT as well"
    )
    args = parser.parse_args(argv)
    if not (args.directory / "meta.json").is_file() and not _kinds_of(args.directory):
        parser.error(
            f"{args.directory} has no meta.json and none of "
            f"{', '.join((*T0_FILES, *FAMILY_FOLDERS, *GEMMA_CASES, GEMMA_COUNTS))}: "
            "not a folder of reference numbers"
        )
    _prepare()
    # Standard output is for the result alone; what the libraries print goes to standard error.
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        report = _compare(args.directory, _vocabulary(args), huggingface=args.huggingface)
    finally:
        sys.stdout = stdout
    print(_FORMATS[args.format](report))
    return 0 if report.ok else 1


def _prepare() -> None:
    """Makes the packages importable from any folder, and chooses the CPU unless the caller has chosen."""
    if str(REPO) not in sys.path:
        sys.path.insert(0, str(REPO))
    for name, value in (
        ("JAX_PLATFORMS", "cpu"),
        ("TF_CPP_MIN_LOG_LEVEL", "3"),
        ("TF_ENABLE_ONEDNN_OPTS", "0"),
        ("NO_GCE_CHECK", "true"),
    ):
        os.environ.setdefault(name, value)


def _kinds_of(directory: pathlib.Path) -> list[str]:
    """What a folder without meta.json holds reference numbers of: their modules in tests/parity."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    kinds = {
        "t0": T0_FILES,
        "peft_family": FAMILY_FOLDERS,
        "t5gemma": (*GEMMA_CASES, GEMMA_COUNTS),
    }
    found = [kind for kind, own in kinds.items() if names & set(own)]
    return found if "meta.json" not in names else []


def _vocabulary(args: argparse.Namespace) -> pathlib.Path | None:
    """T5's vocabulary: the one that was named, else the one beside the reference numbers or beside the checkout."""
    if args.vocabulary is not None:
        return args.vocabulary
    above = args.directory.resolve().parents
    places = [*above[:2], REPO.parent / "shared"]
    return next((p / VOCABULARY for p in places if (p / VOCABULARY).is_file()), None)


def _compare(directory: pathlib.Path, vocabulary: pathlib.Path | None, *, huggingface: bool) -> Any:
    """The report of all comparisons that were asked for."""
    from tests.parity import golden
    from tests.parity.golden_folder import Golden

    if kinds := _kinds_of(directory):
        report = golden.Report()
        for kind in kinds:
            found = importlib.import_module(f"tests.parity.{kind}").compare(directory, vocabulary)
            report.rows += found.rows
            report.not_checked += found.not_checked
    else:
        folder = Golden(directory, vocabulary)
        report = golden.compare(folder)
        report.not_checked += golden.unread_files(folder)
    if huggingface:
        from tests.parity import huggingface as transformers_models
        from tests.parity import peft, peft_methods

        for adapters in (transformers_models, peft, peft_methods):
            report.rows += adapters.comparisons()
    return report


def _as_json(report: Any) -> str:
    """The report as an object with `rows`, `ok` and `not_checked`; a difference that is no number is null."""
    rows = [
        {
            "name": row.name,
            "measured": float(row.measured) if math.isfinite(row.measured) else None,
            "tolerance": float(row.tolerance),
            "ok": bool(row.ok),
            "unit": row.unit,
            "note": row.note,
        }
        for row in report.rows
    ]
    not_checked = [{"name": item.name, "reason": item.reason} for item in report.not_checked]
    return json.dumps({"ok": report.ok, "rows": rows, "not_checked": not_checked}, indent=1)


def as_table(report: Any) -> str:
    """Returns the report as Markdown."""
    lines = [
        "| comparison | measured | tolerance | unit | ok | note |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.measured:.2g} | {row.tolerance:.2g} | {row.unit}"
        f" | {'yes' if row.ok else 'NO'} | {row.note} |"
        for row in report.rows
    ]
    failed = [row.name for row in report.rows if not row.ok]
    lines += ["", f"{len(report.rows)} comparisons, {len(failed)} do not hold."]
    if report.not_checked:
        lines += ["", "| not checked | reason |", "|---|---|"]
        lines += [f"| {item.name} | {item.reason} |" for item in report.not_checked]
    return "\n".join(lines)


def _as_csv(report: Any) -> str:
    """The rows alone, as docs/measured/parity.csv keeps them."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("comparison", "measured", "tolerance", "unit", "ok", "note"))
    for row in report.rows:
        ok = "yes" if row.ok else "NO"
        write((row.name, f"{row.measured:.2g}", f"{row.tolerance:.2g}", row.unit, ok, row.note))
    return text.getvalue().rstrip("\n")


_FORMATS = {"csv": _as_csv, "json": _as_json, "table": as_table}

if __name__ == "__main__":
    sys.exit(main())
