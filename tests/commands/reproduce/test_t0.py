"""`prompt-tuning reproduce t0` with a tiny model, templates and records made here, in place of the published ones."""

import json

import gin
import pytest

from prompt_tuning import cli
from prompt_tuning.data import context
from prompt_tuning.run import template_table
from tests import tiny_run

TEMPLATE = """\
  {id}: !Template
    name: {name}
    jinja: "{jinja} ||| {{{{ answer_choices[label] }}}}"
    answer_choices: {choices}
    metadata: !TemplateMetadata {{original_task: {original}, choices_in_prompt: true, metrics: [Accuracy]}}
"""


@pytest.fixture(autouse=True)
def clean():
    yield
    context.set_context()
    gin.clear_config()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """Two data sets of T0's evaluation: one template that it takes of each, and one that it does not."""
    folder = tmp_path_factory.mktemp("templates")
    for dataset, subset in (("anli", None), ("super_glue", "rte")):
        path = folder / dataset / (subset or "") / "templates.yaml"
        path.parent.mkdir(parents=True)
        jinja, choices = "{{{{ premise }}}} then {{{{ hypothesis }}}}", "the film ||| a river"
        made = [("does it follow", "true"), ("another question", "false")]
        entries = [
            TEMPLATE.format(
                id=n, name=name, jinja=jinja.format(), choices=choices, original=original
            )
            for n, (name, original) in enumerate(made)
        ]
        head = f"dataset: {dataset}\n" + (f"subset: {subset}\n" if subset else "")
        path.write_text(f"{head}templates:\n{''.join(entries)}")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Records of both; ANLI's rounds are splits of it."""
    folder = tmp_path_factory.mktemp("data")
    splits = [*(f"anli/dev_r{n}" for n in (1, 2, 3)), "super_glue/rte/validation"]
    for split in splits:
        path = folder / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"premise": f"a film {n}", "hypothesis": "the mill", "label": n % 2} for n in range(4)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def argv(inputs, templates, data, output_dir):
    flags = {
        "checkpoint": inputs.checkpoint,
        "vocabulary": inputs.vocabulary,
        "templates": templates,
        "data_dir": data,
        "output_dir": output_dir,
    }
    sizes = {
        **tiny_run.TINY_SIZES,
        "tasks.t0.skip_missing": True,
        "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 8},
    }
    return [
        "reproduce",
        "t0",
        *(f"--{name}={value}" for name, value in flags.items() if value is not None),
        *(f"--gin.{name}={value!r}" for name, value in sizes.items()),
    ]


def test_ours_stands_beside_the_published_numbers(inputs, templates, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main([*argv(inputs, templates, data, out), "--format=json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert list(report["datasets"]) == ["anli_r1", "anli_r2", "anli_r3", "super_glue_rte"]
    for row in report["datasets"].values():
        assert list(row["templates"]) == ["does it follow"]
        assert row["median"] in (0.0, 25.0, 50.0, 75.0, 100.0)
    rte, anli = (report["groups"]["median"][name] for name in ("super_glue_rte", "anli"))
    assert report["averages"]["median"]["over_groups"] == pytest.approx((rte + anli) / 2)
    medians = report["published"][0]
    assert (medians["model"], medians["statistic"]) == ("T0 11B", "median")
    assert medians["averages"]["over_groups"] == pytest.approx((81.2 + 126.5 / 3) / 2)
    assert "super_glue_cb" in report["notes"][0] and "winogrande" in report["notes"][0]
    written = json.loads((out / "inference_eval" / template_table.FILE).read_text())
    assert written["datasets"] == report["datasets"] and written["step"] == tiny_run.STEP
    # `eval` prints the same table for people.
    assert "mean over groups (2)" in captured.err and "T0 3B, mean" in captured.err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("checkpoint", ["https://huggingface.co/bigscience/T0_3B", "hf download"]),
        ("templates", ["promptsource", "pip download"]),
    ],
)
def test_what_is_missing_is_named_with_where_it_is(
    flag, words, inputs, templates, data, tmp_path, capsys
):
    command = argv(inputs, templates, data, tmp_path / "out")
    for changed in (
        [arg for arg in command if not arg.startswith(f"--{flag}=")],
        [*command, f"--{flag}={tmp_path}/missing"],
    ):
        assert cli.main(changed) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in [*words, f"--{flag}"]), error
    assert not (tmp_path / "out").exists()


def test_flags_of_the_other_numbers_are_refused(inputs, templates, data, tmp_path, capsys):
    command = argv(inputs, templates, data, tmp_path / "out")
    assert cli.main([*command, "--prompts_dir=/prompts"]) == 2
    assert "reproduce t0 has no flag --prompts_dir" in capsys.readouterr().err
    assert cli.main([*command, "--model=T0_11B"]) == 2
    assert "'T0_3B'" in capsys.readouterr().err
