"""Tasks whose answer is the label that the model finds likeliest."""

import functools

import pytest
import seqio

from prompt_tuning.commands.tasks import cache
from prompt_tuning.data import context, ranking, registry, verbalizers
from prompt_tuning.data.metrics import accuracy
from prompt_tuning.data.postprocessors import label_index
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import (  # noqa: F401  (registers the tasks)
    glue,
    sentinel_targets,
    super_glue,
    transfer,
)
from tests.data.local_data import write_data, write_jsonl


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


def test_only_whole_examples_count():
    labels = ("no", "yes", "maybe")
    metric_fn = ranking.of_likeliest(accuracy, label_index(labels), labels)
    # The first is right; the second is cut off behind two of its labels, of which the wrong one would win.
    targets = [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 2), (1, 1, 2)]
    scores = [-1.0, -2.0, -3.0, -1.0, -2.0]
    assert metric_fn(targets, scores) == {"accuracy": 100.0}
    with pytest.raises(DataError, match="EVALUATOR_NUM_EXAMPLES to a multiple of 3"):
        metric_fn(targets[3:], scores[3:])


@pytest.mark.parametrize(("source", "target"), [("qqp", "mrpc"), ("mrpc", "qqp")])
def test_transfer_ranks_the_words_of_the_task_that_was_trained_on(source, target):
    words = verbalizers.get_verbalizers(f"glue_{source}_v002") or ()
    own = verbalizers.get_verbalizers(f"glue_{target}_v002") or ()
    task = seqio.TaskRegistry.get(f"glue_{target}_from_{source}_v002_rank")
    assert verbalizers.get_verbalizers(task.name) == words != own
    probe = glue.DATA_SETS[target].probe[-1:]
    assert [text for _, text in registry.texts(task, probe)] == list(words)
    # The right class is the last one, and likeliest.
    label = len(own) - 1
    rows = [
        task.postprocess_fn(
            "",
            is_target=True,
            example={"rank/answer": own[label].encode(), "rank/example": 0, "rank/class": i},
        )
        for i in range(2)
    ]
    assert [row[2] for row in rows] == [label] * 2
    for metric_fn in task.score_metric_fns:
        assert set(metric_fn(rows, [-2.0, -1.0]).values()) == {100.0}


def test_a_ranked_task_is_not_cached(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "_import_beam", lambda: (None, None))
    for name in ("taskless_super_glue_cb_v102_rank", "taskless_super_glue_cb_v102_rank_sentinel"):
        with pytest.raises(DataError, match="run without a cache, as ranked tasks always do"):
            cache.cache_task(
                seqio.TaskRegistry.get(name),
                ["validation"],
                cache_dir=str(tmp_path),
                min_shards=2,
                pipeline_options=[],
                overwrite=False,
                set_up=lambda: None,
            )


def test_a_run_from_caches_reads_ranked_tasks_without(tmp_path, vocabulary):
    name = "taskless_super_glue_cb_v102_rank"
    data_dir = str(write_data(tmp_path / "data"))
    context.set_context(vocabulary, data_dir)
    # What `seqio_cache_tasks` leaves; each of its parts would number its examples from 0.
    folder = tmp_path / "cache" / name
    folder.mkdir(parents=True)
    (folder / "COMPLETED").touch()
    dirs = list(seqio.get_global_cache_dirs())
    seqio.add_global_cache_dirs([str(tmp_path / "cache")])
    try:
        task = seqio.TaskRegistry.get(name)
        ds = task.get_dataset(None, "validation", use_cached=True, shuffle=False)
        numbers = [(int(e["rank/example"]), int(e["rank/class"])) for e in ds.as_numpy_iterator()]
    finally:
        seqio.set_global_cache_dirs(dirs)
    assert numbers == [(example, label) for example in range(5) for label in range(3)]


def test_every_classification_task_has_a_ranked_form_without_training_split():
    names = set(seqio.TaskRegistry.names())
    # Each without and with its name; two of GLUE's versions, and their transfer.
    ranked = {name for name in names if "glue_" in name and name.endswith("_rank")}
    assert len(ranked) == 2 * 6 + 2 * 2 * (10 + 2)
    for name in ranked:
        task = seqio.TaskRegistry.get(name)
        assert "train" not in task.splits and "validation" in "".join(task.splits)
        assert task.score_metric_fns and not task.predict_metric_fns
        plain = name.removesuffix("_rank")
        assert verbalizers.get_verbalizers(name) == verbalizers.get_verbalizers(plain)


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("taskless_super_glue_cb_v102_rank", {"mean_3class_f1", "accuracy"}),
        ("super_glue_multirc_v102_rank", {"f1", "exact_match"}),
    ],
)
def test_seqios_evaluator_has_every_label_scored(tmp_path, vocabulary, name, metrics):
    answers = [{"text": f"a {i}", "idx": i, "label": i % 2} for i in range(4)]
    passage = {"text": "the mill", "questions": [{"question": "q", "idx": 0, "answers": answers}]}
    data = write_data(tmp_path / "data")
    write_jsonl(data / "MultiRC" / "val.jsonl", [{"idx": 0, "passage": passage}])
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

    def score(dataset, model_feature_shapes=None, *, likes_right):
        """Likes the right label, or another."""
        del model_feature_shapes
        scores = []
        for (i, _), example in zip(dataset.as_numpy_iterator(), examples, strict=True):
            is_right = example["rank/answer"] == example["targets_pretokenized"]
            scores.append((int(i), 0.0 if is_right == likes_right else -1.0))
        return scores

    for likes_right in (True, False):
        future, _ = evaluator.evaluate(
            compute_metrics=True,
            step=0,
            score_fn=functools.partial(score, likes_right=likes_right),
            predict_fn=None,
        )
        result = future.result()[name]
        assert result.keys() == metrics
        assert set(result.values()) == {100.0 if likes_right else 0.0}
