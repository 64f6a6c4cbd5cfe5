"""The synthetic suite in templates: what is trained on, what is held out, what is ranked."""

import seqio

from prompt_tuning.data.synthetic import benchmark
from prompt_tuning.data.templates import origins
from prompt_tuning.data.templates.read import read_templates
from prompt_tuning.data.templates.render import Renderer
from prompt_tuning.tasks import synthetic_templates
from prompt_tuning.tasks.synthetic_templates import HELD_OUT


def of(mixture):
    """Names of the tasks, and the data sets that they are of."""
    names = [task.name for task in seqio.MixtureRegistry.get(mixture).tasks]
    made_of = [origins.of_task(name) for name in names]
    return names, {origin.dataset.removeprefix("synthetic_") for origin in made_of if origin}


def test_training_and_evaluation_share_no_task():
    trained, datasets = of("synthetic_t0_train")
    assert datasets == set(benchmark.FORMS) - set(HELD_OUT)
    assert not any(name.endswith("_score_eval") for name in trained)
    for mixture, expected in (
        ("synthetic_t0_train_score_eval", datasets),
        ("synthetic_t0_eval_score_eval", set(HELD_OUT)),
        ("synthetic_wsc_score_eval", {"wsc"}),
    ):
        ranked, found = of(mixture)
        assert found == expected and len(ranked) >= 3 * len(found)
        tasks = [seqio.TaskRegistry.get(name) for name in ranked]
        assert all(
            "train" not in task.splits and task.name.endswith("_score_eval") for task in tasks
        )


def test_few_shots_are_trained_on_and_all_templates_evaluated():
    names, datasets = of("synthetic_rte_few_shot")
    mixture = seqio.MixtureRegistry.get("synthetic_rte_few_shot")
    rates = {task.name: (task.splits, mixture.get_rate(task)) for task in mixture.tasks}
    assert datasets == {"rte"} and len(names) >= 4
    assert rates.pop("synthetic_rte_shots") == (("train",), 1.0)
    assert set(rates.values()) == {(("validation",), 0.0)}
    # T0 and T-Few end inputs differently.
    ends = {name: seqio.TaskRegistry.get(name).output_features["inputs"].add_eos for name in names}
    assert all(ends.values())
    trained, _ = of("synthetic_t0_train")
    assert not seqio.TaskRegistry.get(trained[0]).output_features["inputs"].add_eos


def test_every_template_writes_a_right_answer():
    found = read_templates(str(synthetic_templates.TEMPLATES))
    assert {name for _, name in found} == set(benchmark.FORMS)
    written = 0
    for (_, name), templates in found.items():
        for template in templates:
            texts = set()
            for record in benchmark.rows(str(name), "test")[:12]:
                rendered = Renderer(template)(record, seed=0)
                inputs, target = rendered.parts
                assert inputs and target
                if rendered.answer_choices is not None:
                    assert rendered.answer_choices[record["label"]] == target
                    assert len(set(rendered.answer_choices)) == len(rendered.answer_choices)
                texts.add((inputs, target))
                written += 1
            assert len(texts) > 6
    assert written >= 12 * 3 * len(benchmark.FORMS)
