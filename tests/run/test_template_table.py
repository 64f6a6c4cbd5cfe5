"""The table of templates: printed with both means, and written beside the metrics."""

import json

from etils import epath

from prompt_tuning.data.templates import origins
from prompt_tuning.data.templates.origins import Origin
from prompt_tuning.run import template_table


def test_the_table_and_the_file(tmp_path, monkeypatch):
    rounds = ("anli_r1", "anli_r2", "anli_r3")
    made_of = {f"{name}_gpt": Origin(name, "anli", "gpt") for name in rounds}
    made_of |= {f"hellaswag_{t}": Origin("hellaswag", "hellaswag", t) for t in "ab"}
    monkeypatch.setattr(origins, "_ORIGINS", made_of)
    results = {task: {"accuracy": 30.0 + n} for n, task in enumerate(made_of)}
    summary = template_table.summarize(results)
    assert summary is not None
    lines = template_table.text(summary).splitlines()
    rows = {line[:26].strip(): line[26:].split() for line in lines}
    assert rows["hellaswag"][:6] == ["2", "33.5", "33.5", "0.5", "33.2", "to"]
    # Beside them T0 11B's median and mean: ANLI's mean of three rounds is (44.7 + 39.4 + 42.4) / 3, and 41.0.
    assert rows["anli, mean of 3"][:4] == ["31.0", "31.0", "42.2", "41.0"]
    assert rows["mean over columns (4)"][:4] == ["31.6", "31.6", "40.0", "-"]
    assert rows["mean over groups (2)"][:4] == ["32.2", "32.2", "37.9", "37.3"]
    assert any("table 9" in line for line in lines)
    (tmp_path / "inference_eval").mkdir()
    template_table.write(summary, epath.Path(tmp_path), step=7)
    written = json.loads((tmp_path / "inference_eval" / template_table.FILE).read_text())
    assert written["step"] == 7
    assert written["datasets"]["anli_r2"]["templates"] == {
        "gpt": {"task": "anli_r2_gpt", "score": 31.0}
    }
    assert written["averages"]["median"]["over_groups"] == 32.25
    assert template_table.summarize({"boolq": {"accuracy": 50.0}}) is None
