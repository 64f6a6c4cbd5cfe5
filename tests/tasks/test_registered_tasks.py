"""Every registered task: its name, its text, its ids, its metrics, and what happens where the name is taken."""

import gzip
import importlib
import json
import re
from typing import Any

import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import batches, context, registry, verbalizers
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.benchmarks import data_sets
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import (  # noqa: F401  (registers the tasks)
    mixtures,
    question_answering,
    super_glue,
    transfer,
)
from tests.data.local_data import write_data
from tests.helpers import REPO

SUPER_GLUE = "boolq cb copa multirc record rte wic axb axg".split()
GLUE = "cola sst2 mrpc qqp stsb mnli mnli_mismatched mnli_matched qnli rte wnli ax".split()
MRQA = "bio_asq drop duo_rc race relation_extraction textbook_qa".split()
MRQA_IN_DOMAIN = "squad news_qa trivia_qa search_qa hotpot_qa natural_questions".split()


def with_suffixes(*names):
    return {f"{name}{suffix}" for name in names for suffix in ("", "_examples")}


def test_the_names_are_the_ones_users_type():
    bases = [f"super_glue_{name}_v102" for name in SUPER_GLUE]
    bases += [f"super_glue_wsc_v102_simple_{role}" for role in ("train", "eval")]
    bases += ["dpr_v001_simple"]
    for version in ("v002", "v200"):
        bases += [f"glue_{name}_{version}" for name in GLUE]
        bases += [f"glue_{pair}_{version}" for pair in ("mrpc_from_qqp", "qqp_from_mrpc")]
    kinds = ("", "taskless_", "task_index_")
    forms = [f"{model}{kind}" for model in ("", "mt5_", "byt5_") for kind in kinds]
    expected = with_suffixes(*(f"{form}{base}" for form in forms for base in bases))
    questions = ["squad_v010_allanswers", "squad_v010_context_free"]
    questions += [f"mrqa_{name}_v100" for name in MRQA + MRQA_IN_DOMAIN]
    expected |= with_suffixes(
        *(f"{form}{base}" for form in ("", "mt5_", "byt5_") for base in questions)
    )
    assert len(expected) == 804
    assert expected <= set(seqio.TaskRegistry.names())


def test_the_mixtures_are_the_ones_users_type():
    bases = ["super_glue_v102_proportional", "wsc_dpr_simple_proportional"]
    bases += ["super_glue_wsc_and_dev_v102_simple"]
    for version in ("v002", "v200"):
        bases += [f"glue_{version}_proportional", f"glue_mnli_and_dev_{version}"]
        bases += [f"glue_{p}_zeroshot_{version}" for p in ("mrpc_from_qqp", "qqp_from_mrpc")]
    expected = with_suffixes(*(f"{form}{base}" for form in ("", "taskless_") for base in bases))
    expected |= with_suffixes(*(f"squad_to_{name}" for name in (*MRQA, "mrqa")))
    expected |= with_suffixes(*(f"{form}mrqa_v100_proportional" for form in ("", "mt5_", "byt5_")))
    expected |= {"super_glue_v102_rank", "taskless_super_glue_v102_rank"}
    expected |= {
        f"task_index_super_glue_{dpr}v102_examples_proportional" for dpr in ("", "with_dpr_")
    }
    assert len(expected) == 68
    assert expected <= set(seqio.MixtureRegistry.names())
    for name in expected:
        mixture = seqio.MixtureRegistry.get(name)
        prefix = "taskless_" if name.startswith("taskless_") else ""
        assert all(task.name.startswith(prefix) for task in mixture.tasks), name


def test_the_multi_task_baseline_mixes_by_examples_with_dpr():
    mixture = seqio.MixtureRegistry.get("super_glue_v102_proportional")
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert rates["dpr_v001_simple"] == 1322 and rates["super_glue_record_v102"] == 138854
    assert sum(rates.values()) == 1322 + 259 + 9427 + 250 + 400 + 27243 + 138854 + 2490 + 5428
    assert {name for name, rate in rates.items() if not rate} == {
        "super_glue_wsc_v102_simple_eval",
        "super_glue_axb_v102",
        "super_glue_axg_v102",
    }
    glue_mixture = seqio.MixtureRegistry.get("taskless_glue_v200_proportional")
    rates = {task.name: glue_mixture.get_rate(task) for task in glue_mixture.tasks}
    assert sum(rates.values()) == 8551 + 67349 + 3668 + 363849 + 5749 + 392702 + 104743 + 2490
    assert "taskless_glue_wnli_v200" not in rates


def test_the_page_makes_a_mixture_that_leaves_a_task_out(tmp_path, monkeypatch):
    page = (REPO / "docs/use/data_sets.md").read_text(encoding="utf-8")
    (module,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "mixture_of_the_page.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = DatasetConfig("glue_without_rte", {}, "train", 1, module="mixture_of_the_page")
    mixture = batches.get_task(cfg)
    assert isinstance(mixture, seqio.Mixture)
    whole = seqio.MixtureRegistry.get("glue_v200_proportional")
    rates = {task.name: whole.get_rate(task) for task in whole.tasks}
    assert rates.pop("glue_rte_v200") == 2490
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == rates


def test_the_sets_of_mrqa_are_mixed_by_their_questions():
    mixture = seqio.MixtureRegistry.get("mrqa_v100_proportional")
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert set(rates) == {f"mrqa_{name}_v100" for name in MRQA_IN_DOMAIN}
    # All questions of MRQA's training sets.
    assert sum(rates.values()) == 516_819 and rates["mrqa_hotpot_qa_v100"] == 72_928


def test_the_sets_of_mrqa_that_are_trained_on_lie_in_two_folders(tmp_path):
    for folder in ("train", "dev"):
        path = tmp_path / "MRQA" / folder / "HotpotQA.jsonl.gz"
        path.parent.mkdir(parents=True)
        row = {"context": folder, "qas": [{"qid": "1", "question": "q", "answers": ["a"]}]}
        path.write_bytes(gzip.compress(f"{json.dumps({'header': {}})}\n{json.dumps(row)}".encode()))
    context.set_context(data_dir=str(tmp_path))
    source = seqio.TaskRegistry.get("mrqa_hotpot_qa_v100").source
    for split, folder in (("train", b"train"), ("validation", b"dev")):
        (example,) = source.get_dataset(split, shuffle=False).as_numpy_iterator()
        assert example["context"] == folder


@pytest.mark.parametrize("module", ["glue", "super_glue", "qa", "glue_transfer", "tasks"])
def test_the_authors_module_names_load_our_tasks(module):
    importlib.import_module(f"prompt_tuning.data.{module}")
    cfg = DatasetConfig("glue_sst2_v002", {}, "train", 1, module=f"prompt_tuning.data.{module}")
    assert batches.get_task(cfg).name == "glue_sst2_v002"


def test_transfer_reads_the_other_tasks_words():
    for source, target, words in (
        ("qqp", "mrpc", ["not_duplicate", "duplicate"]),
        ("mrpc", "qqp", ["not_equivalent", "equivalent"]),
    ):
        for suffix in ("", "_examples"):
            name = f"taskless_glue_{target}_from_{source}_v002{suffix}"
            task = seqio.TaskRegistry.get(name)
            assert tuple(task.splits) == ("validation",)
            values = [task.postprocess_fn(word) for word in [*words, "other"]]
            values = [v["prediction"] for v in values] if suffix else values
            assert values == [0, 1, -1]
            own = seqio.TaskRegistry.get(f"glue_{target}_v002")
            for label, word in enumerate(verbalizers.get_verbalizers(own.name) or ()):
                assert task.postprocess_fn(word, is_target=True) == label
        mixture = seqio.MixtureRegistry.get(f"glue_{target}_from_{source}_zeroshot_v002")
        assert {task.name for task in mixture.tasks} == {
            f"glue_{source}_v002",
            f"glue_{target}_from_{source}_v002",
        }


RTE = super_glue.DATA_SETS["rte"]


@pytest.fixture
def clean_registry():
    """Removes what a test registers."""
    before = set(seqio.TaskRegistry.names()), set(seqio.MixtureRegistry.names())
    yield
    for registry_, names in zip((seqio.TaskRegistry, seqio.MixtureRegistry), before, strict=True):
        for name in set(registry_.names()) - names:
            registry_.remove(name)


def register_someone_elses(name, first_word, module="t5.data.preprocessors"):
    """Registers RTE as another package would."""

    def as_t5_writes_it(ds):
        return ds.map(
            lambda e: {
                "inputs": tf.strings.join(
                    [first_word, "hypothesis:", e["hypothesis"], "premise:", e["premise"]], " "
                ),
                "targets": tf.gather(tf.constant([*RTE.verbalizers, "<unk>"]), e["label"] % 3),
                "idx": e["idx"],
            }
        )

    as_t5_writes_it.__module__ = module
    template: Any = seqio.TaskRegistry.get("super_glue_rte_v102")
    return seqio.TaskRegistry.add(
        name,
        source=template.source,
        preprocessors=[as_t5_writes_it, *template.preprocessors[1:]],
        output_features=template.output_features,
        metric_fns=[],
    )


def register_ours(name):
    data_sets.register(RTE, name, tfds_name="super_glue/rte:1.0.2", to_text=RTE.text("rte"))
    return seqio.TaskRegistry.get(name)


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("theirs_is_first", [True, False])
def test_of_t5s_task_and_ours_with_the_same_text_ours_stays(theirs_is_first):
    name = "super_glue_rte_copy_v102"
    if theirs_is_first:
        theirs = register_someone_elses(name, "rte")
        ours = register_ours(name)
    else:
        ours = register_ours(name)
        theirs = register_someone_elses(name, "rte")
    assert seqio.TaskRegistry.get(name) is ours is not theirs
    assert ours.metric_fns and not theirs.metric_fns
    assert register_ours(name) is ours


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("theirs_is_first", [True, False])
def test_a_users_task_of_our_name_is_refused_not_dropped(theirs_is_first):
    name = "super_glue_rte_users_v102"
    if theirs_is_first:
        register_someone_elses(name, "rte", module="mine")
        with pytest.raises(DataError, match="already registered by another module"):
            register_ours(name)
    else:
        register_ours(name)
        with pytest.raises(ValueError, match="duplicate"):
            register_someone_elses(name, "rte", module="mine")


@pytest.mark.usefixtures("clean_registry")
def test_a_task_that_wants_other_fields_is_another_text():
    name = "super_glue_rte_fields_v102"
    template: Any = seqio.TaskRegistry.get("super_glue_rte_v102")
    task = template.replace(
        name=name,
        preprocessors=[lambda ds: ds.map(lambda e: e["sentence"]), *template.preprocessors[1:]],
    )
    seqio.TaskRegistry.add_provider(name, task)
    with pytest.raises(DataError, match="examples .KeyError: KeyError: .*sentence"):
        register_ours(name)


@pytest.mark.usefixtures("clean_registry")
def test_a_mixture_of_before_gets_our_tasks():
    name = "super_glue_rte_mixture"
    theirs = seqio.MixtureRegistry.add(name, [("super_glue_rte_v102", 2)])
    ours = registry.register_mixture(name, {"super_glue_rte_v102": 2.0})
    assert seqio.MixtureRegistry.get(name) is ours is not theirs
    other = f"{name}_2"
    seqio.MixtureRegistry.add(other, [("super_glue_rte_v102", 2)])
    with pytest.raises(DataError, match="other tasks or rates"):
        registry.register_mixture(other, ["super_glue_rte_v102"])


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("theirs_is_first", [True, False])
def test_a_taken_name_with_other_text_is_refused(theirs_is_first):
    name = "super_glue_rte_other_v102"
    steps = [lambda: register_someone_elses(name, "nli"), lambda: register_ours(name)]
    first, second = steps if theirs_is_first else steps[::-1]
    first()
    with pytest.raises(DataError) as error:
        second()
    for word in (name, "nli hypothesis:", "rte hypothesis:"):
        assert word in str(error.value)


@pytest.mark.usefixtures("clean_registry")
def test_only_what_is_ours_may_come_twice():
    register_someone_elses("super_glue_rte_theirs_v102", "rte")
    with pytest.raises(ValueError, match="duplicate"):
        register_someone_elses("super_glue_rte_theirs_v102", "rte")
    name = "wsc_dpr_simple_proportional"
    ours = seqio.MixtureRegistry.get(name)
    seqio.MixtureRegistry.add(name, [(task.name, ours.get_rate(task)) for task in ours.tasks])
    assert seqio.MixtureRegistry.get(name) is ours
    with pytest.raises(DataError, match="or rates"):
        seqio.MixtureRegistry.add(name, [(task.name, 2.0) for task in ours.tasks])
    with pytest.raises(DataError, match="other tasks"):
        seqio.MixtureRegistry.add(name, [("dpr_v001_simple", 1.0)])


def test_registering_twice_changes_nothing():
    before = {name: seqio.TaskRegistry.get(name) for name in seqio.TaskRegistry.names()}
    importlib.reload(transfer)
    after = {name: seqio.TaskRegistry.get(name) for name in seqio.TaskRegistry.names()}
    assert before == after
    with pytest.raises(DataError, match="other tasks"):
        registry.register_mixture("glue_mrpc_from_qqp_zeroshot_v200", ["glue_qqp_v200"])


@pytest.mark.parametrize(
    ("task_name", "metric_names"),
    [
        (
            "taskless_super_glue_cb_v102_examples",
            {"mean_3class_f1", "accuracy", "cb samples", "cb negative samples"},
        ),
        ("taskless_glue_mrpc_v200", {"f1", "accuracy"}),
    ],
)
def test_seqios_evaluator_runs_the_task(task_name, metric_names, tmp_path, vocabulary):
    context.set_context(vocabulary=vocabulary, data_dir=str(write_data(tmp_path / "data")))
    evaluator = seqio.Evaluator(
        task_name,
        seqio.EncDecFeatureConverter(pack=False),
        sequence_length={"inputs": 32, "targets": 16},
        logger_cls=[seqio.TensorBoardLogger, seqio.JSONLogger],
        log_dir=str(tmp_path / "log"),
        async_compute_metrics=False,
    )

    def predict(dataset, model_feature_shapes=None):
        """The right answers, but the first."""
        del model_feature_shapes
        examples = dataset.as_numpy_iterator()
        answers = [(int(i), e["decoder_target_tokens"].tolist()) for i, e in examples]
        return [(i, tokens if i else [1] + [0] * 15) for i, tokens in answers]

    future, _ = evaluator.evaluate(compute_metrics=True, step=3, predict_fn=predict)
    result = future.result()[task_name]
    assert result.keys() == metric_names
    assert result["accuracy"] == 80.0
    lines = (tmp_path / "log" / f"{task_name}-metrics.jsonl").read_text().splitlines()
    written = json.loads(lines[0])
    assert written["step"] == 3 and written.keys() == metric_names | {"step"}
    if task_name.endswith("_examples"):
        negative = next(name for name in metric_names if "negative" in name)
        assert written[negative].count("example: ") == 1
    predictions = (tmp_path / "log" / f"{task_name}-000003.jsonl").read_text().splitlines()
    assert len(predictions) == 5
    assert list((tmp_path / "log" / task_name).glob("events.*"))
