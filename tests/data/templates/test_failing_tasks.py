"""A mixture never starts on half of its templates: all that fail are named, and can be left out by name."""

import pytest
import seqio

from prompt_tuning.data import dataset_checks
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.t0.tasks import tasks
from prompt_tuning.errors import ConfigError, DataError
from tests.data.local_data import write_jsonl

MIXTURE = "t0_eval_score_eval"
ENTRY = """\
  {name}: !Template
    name: {name}
    jinja: '{jinja} ||| {{{{ answer_choices[label] }}}}'
    answer_choices: no ||| yes
    metadata: !TemplateMetadata {{original_task: true, metrics: [Accuracy]}}
"""
TEMPLATES = {
    "good": "{{ premise }} so {{ hypothesis }}",
    "lost": "{{ premis }} so {{ hypothesis }}",
    "long": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "three": "{{ premise }} ||| {{ hypothesis }}",
}


@pytest.fixture
def folders(tmp_path, vocabulary):
    folder = tmp_path / "templates" / "super_glue" / "rte"
    folder.mkdir(parents=True)
    entries = "".join(ENTRY.format(name=name, jinja=text) for name, text in TEMPLATES.items())
    (folder / "templates.yaml").write_text(
        f"dataset: super_glue\nsubset: rte\ntemplates:\n{entries}"
    )
    rows = [{"premise": f"p {i}", "hypothesis": f"h {i}", "label": i % 2} for i in range(6)]
    (tmp_path / "data" / "super_glue" / "rte").mkdir(parents=True)
    write_jsonl(tmp_path / "data" / "super_glue" / "rte" / "validation.jsonl", rows)
    yield {"templates": str(tmp_path / "templates"), "data": str(tmp_path / "data")}
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
        for name in [n for n in registry.names() if n.startswith((MIXTURE, "super_glue_rte_"))]:
            if name.endswith("_score_eval"):
                registry.remove(name)


def test_templates_that_fail_are_named_together_and_left_out_by_name(folders):
    dataset = DatasetConfig(MIXTURE, {"inputs": 16, "targets": 4}, "validation", 4)
    tasks(MIXTURE, skip_missing=True, **folders)
    with pytest.raises(DataError) as error:
        dataset_checks.check_dataset(dataset)
    failing = [f"super_glue_rte_{name}_score_eval" for name in ("long", "lost", "three")]
    error.match("3 of the mixture's 4 tasks .*templates.yaml: template '")
    error.match(", ".join(failing))
    tasks(MIXTURE, skip_missing=True, leave_out=failing[:2], **folders)
    with pytest.raises(DataError, match="template 'three': jinja splits in 3"):
        dataset_checks.check_dataset(dataset)
    tasks(MIXTURE, skip_missing=True, leave_out=failing, **folders)
    dataset_checks.check_dataset(dataset)
    with pytest.raises(ConfigError, match=f"leave_out is unknown.*Closest matches: {failing[0]}"):
        tasks(MIXTURE, skip_missing=True, leave_out=["super_glue_rte_lng_score_eval"], **folders)
