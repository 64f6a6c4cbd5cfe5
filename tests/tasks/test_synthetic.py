"""The registered synthetic tasks: their text, ranks, mixtures and the registry's own checks."""

import pytest
import seqio

from prompt_tuning.data import batches, dataset_checks
from prompt_tuning.data.registry import texts
from prompt_tuning.data.synthetic import benchmark
from prompt_tuning.data.verbalizers import get_verbalizers
from prompt_tuning.tasks import synthetic

LABELLED = sorted(set(benchmark.FORMS) - {"wsc"})


def first_text(name, split="validation"):
    task = seqio.TaskRegistry.get(f"synthetic_{name}")
    return texts(task, [benchmark.rows(name, split)[0]])[0]


@pytest.mark.parametrize("name", LABELLED)
def test_inputs_name_their_fields_and_targets_are_answers(name):
    row = benchmark.rows(name, "validation")[0]
    fields = synthetic.FIELDS[name]
    inputs, target = first_text(name)
    assert inputs == " ".join(f"{field}: {row[field]}" for field in fields)
    assert target == benchmark.FORMS[name].classes[row["label"]]
    assert get_verbalizers(f"synthetic_{name}") == benchmark.FORMS[name].classes


def test_a_pronoun_is_marked_and_its_candidate_is_the_target():
    row = benchmark.rows("wsc", "validation")[0]
    inputs, target = first_text("wsc")
    assert inputs.replace("*", "") == row["text"] and f"*{row['span2_text']}*" in inputs
    assert target == row["span1_text"]


def examples(name, split):
    ds = seqio.TaskRegistry.get(name).get_dataset(None, split=split, shuffle=False)
    return list(ds.as_numpy_iterator())


@pytest.mark.usefixtures("vocabulary")
def test_training_learns_of_right_candidates_only():
    rows = [row for row in benchmark.rows("wsc", "train") if row["label"]]
    assert len(examples("synthetic_wsc", "train")) == len(rows) < benchmark.NUM_EXAMPLES["train"]
    made = examples("synthetic_wsc", "test")
    assert len(made) == benchmark.NUM_EXAMPLES["test"]
    assert {int(example["label"]) for example in made} == {0, 1}


@pytest.mark.usefixtures("vocabulary")
def test_ranked_tasks_have_every_label_and_no_training_split():
    for name in LABELLED:
        task = seqio.TaskRegistry.get(f"synthetic_{name}_rank")
        assert set(task.splits) == {"validation", "test"} and task.metric_fns
    classes = benchmark.FORMS["cb"].classes
    made = examples("synthetic_cb_rank", "test")
    assert len(made) == len(classes) * benchmark.NUM_EXAMPLES["test"]
    assert [example["targets_pretokenized"].decode() for example in made[:3]] == list(classes)


def test_the_mixtures_hold_every_task():
    for mixture, suffix in (("synthetic", ""), ("synthetic_rank", "_rank")):
        tasks = {task.name for task in seqio.MixtureRegistry.get(mixture).tasks}
        assert tasks == {"synthetic_wsc", *(f"synthetic_{name}{suffix}" for name in LABELLED)}


@pytest.mark.usefixtures("vocabulary")
def test_a_run_reads_the_mixture_without_any_file():
    cfg = batches.DatasetConfig(
        mixture_or_task_name="synthetic",
        module="prompt_tuning.tasks.synthetic",
        task_feature_lengths={"inputs": 96, "targets": 8},
        split="train",
        batch_size=16,
        shuffle=True,
    )
    dataset_checks.check_dataset(cfg)
    batch = next(batches.train_batches(cfg, seed=0))
    assert batch["encoder_input_tokens"].shape == (16, 96)
    assert (batch["decoder_target_tokens"].sum(axis=1) > 0).all()


@pytest.mark.usefixtures("vocabulary")
def test_evaluation_of_right_answers_is_perfect():
    for name in ("multirc", "wsc"):
        task = seqio.TaskRegistry.get(f"synthetic_{name}")
        made = examples(task.name, "test")
        truths = [example["targets_pretokenized"].decode() for example in made]
        targets = [
            task.postprocess_fn(t, example=e, is_target=True)
            for t, e in zip(truths, made, strict=True)
        ]
        if name == "wsc":
            # The model names the right one: the candidate where it is right, and somebody else where it is not.
            truths = [t if int(e["label"]) else "nobody" for t, e in zip(truths, made, strict=True)]
        said = [
            task.postprocess_fn(t, example=e, is_target=False)
            for t, e in zip(truths, made, strict=True)
        ]
        for metric_fn in task.metric_fns:
            assert set(metric_fn(targets, said).values()) == {100.0}
