"""Tasks whose answer is the label that the model finds likeliest."""

import pytest
import seqio

from prompt_tuning.data import context, ranking, verbalizers
from prompt_tuning.data.metrics import accuracy
from prompt_tuning.data.postprocessors import label_index
from prompt_tuning.tasks import glue, super_glue  # noqa: F401  (registers the tasks)
from tests.data.local_data import write_data, write_jsonl


@pytest.fixture(autouse=True)
def clean_context():
    yield
    context.set_context()


def test_the_likeliest_label_is_the_answer():
    labels = ("no", "yes", "maybe")
    metric_fn = ranking.of_likeliest(accuracy, label_index(labels), labels)
    targets = [(example, index, example % 2) for example in range(3) for index in range(3)]
    # Examples 0 and 2 are "no", example 1 is "yes"; the last one's first two labels are equal.
    scores = [-1.0, -2.0, -3.0, -1.0, -2.0, -0.5, -4.0, -4.0, -5.0]
    assert metric_fn(targets, scores) == {"accuracy": pytest.approx(200 / 3)}
    order = [4, 8, 0, 2, 6, 1, 3, 7, 5]
    shuffled = metric_fn([targets[i] for i in order], [scores[i] for i in order])
    assert shuffled == metric_fn(targets, scores)


def test_every_classification_task_has_a_ranked_form_without_training_split():
    names = set(seqio.TaskRegistry.names())
    ranked = {name for name in names if name.endswith("_rank")}
    assert len(ranked) == 2 * 6 + 2 * 2 * 10
    for name in ranked:
        task = seqio.TaskRegistry.get(name)
        assert "train" not in task.splits and "validation" in "".join(task.splits)
        assert task.score_metric_fns and not task.predict_metric_fns
        plain = name.removesuffix("_rank")
        assert verbalizers.get_verbalizers(name) == verbalizers.get_verbalizers(plain)


@pytest.mark.parametrize("likes", ["right", "wrong"])
@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("taskless_super_glue_cb_v102_rank", {"mean_3class_f1", "accuracy"}),
        ("super_glue_multirc_v102_rank", {"f1", "exact_match"}),
    ],
)
def test_seqios_evaluator_has_every_label_scored(tmp_path, tiny_vocabulary, name, metrics, likes):
    answers = [{"text": f"a {i}", "idx": i, "label": i % 2} for i in range(4)]
    passage = {"text": "the mill", "questions": [{"question": "q", "idx": 0, "answers": answers}]}
    data = write_data(tmp_path / "data")
    write_jsonl(data / "MultiRC" / "val.jsonl", [{"idx": 0, "passage": passage}])
    vocabulary = seqio.SentencePieceVocabulary(str(tiny_vocabulary))
    context.set_context(vocabulary=vocabulary, data_dir=str(data))
    evaluator = seqio.Evaluator(
        name,
        seqio.EncDecFeatureConverter(pack=False),
        sequence_length={"inputs": 48, "targets": 16},
        async_compute_metrics=False,
    )
    task = seqio.TaskRegistry.get(name)
    labels = verbalizers.get_verbalizers(name) or ()
    examples = list(task.get_dataset(None, "validation", shuffle=False).as_numpy_iterator())
    assert len(examples) == len(labels) * (4 if "multirc" in name else 5)

    def score(dataset, model_feature_shapes=None):
        """Likes the right label, or another."""
        del model_feature_shapes
        scores = []
        for (i, _), example in zip(dataset.as_numpy_iterator(), examples, strict=True):
            is_right = example["rank/answer"] == example["targets_pretokenized"]
            scores.append((int(i), 0.0 if is_right == (likes == "right") else -1.0))
        return scores

    future, _ = evaluator.evaluate(compute_metrics=True, step=0, score_fn=score, predict_fn=None)
    result = future.result()[name]
    assert result.keys() == metrics
    assert set(result.values()) == {100.0 if likes == "right" else 0.0}
