"""T0 in miniature: its commands name files that ship, and its tables come from rows."""

import json
import pathlib

from prompt_tuning.launch import pages
from prompt_tuning.launch.studies import t0

_ROOT = pathlib.Path(__file__).resolve().parents[3]
# A mean over seeds and the deviation of 40, 50, 60.
SCORES = {0: 40.0, 1: 50.0, 2: 60.0}


def row(sweep, start, task, seed, score, metrics):
    axes = {"start": start, "task": task, "seed": str(seed)}
    return {
        "sweep": sweep,
        "title": "A title",
        "scale": "mini",
        "cell": ",".join(f"{axis}={value}" for axis, value in axes.items()),
        "key": f"{sweep}{start}{task}{seed}",
        "axes": axes,
        "status": "done",
        "score": score,
        "metrics": metrics,
        "seconds": 30.0,
    }


def test_the_tables_are_written_between_the_markers(tmp_path):
    metrics = {f"rte_{n}/accuracy": value for n, value in enumerate((10.0, 20.0, 60.0))}
    made = [row("t0_zero_shot", "adapted", "rte", 0, 30.0, metrics)]
    for seed, score in SCORES.items():
        made.append(row("t0_zero_shot", "prompted", "rte", seed, score, {"a/accuracy": score}))
        made.append(row("t0_prompt", "prompted", "wsc", seed, score, {"accuracy": score}))
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in made))
    page = tmp_path / "t0.md"
    page.write_text(f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")
    t0.main([f"--output_dir={tmp_path}", f"--page={page}", "--write_only"])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    # The median of the templates is not their mean; before training there is no seed.
    assert "| rte | 20.0 | 30.0 | 50.0 ± 10.0 | 50.0 ± 10.0 |" in text
    assert "| wsc | - | 50.0 ± 10.0 |" in text
    assert "(`t0_zero_shot`): 4 cells done, 0 failed," in text and "; 2:00 of one worker." in text


def test_the_commands_name_files_that_ship():
    *trained, sweep = t0.commands("/path/results", 2)
    assert len(trained) == len(t0.SEEDS)
    files = [w.partition("--gin_file=")[2] for words in trained for w in words if ".gin" in w]
    files += [word for word in sweep if word.endswith(".gin")]
    found = [(_ROOT / name.removeprefix("prompt_tuning/")).is_file() for name in files if name]
    assert len(found) == 2 * len(t0.SEEDS) + len(t0.SWEEPS) and all(found)
    assert "--gin.T0_DIR='/path/results/prompted'" in sweep and sweep[-1] == "--jobs=2"
