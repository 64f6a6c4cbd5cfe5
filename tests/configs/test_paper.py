"""The paper's experiments: every sweep resolves at every scale, counts what the paper counts, means what it says."""

import dataclasses
import functools
import itertools
import json
import math

import numpy as np
import pytest
import seqio

from prompt_tuning import cli, ladder, tree
from prompt_tuning.checkpoints.formats import weights
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.commands.report import published
from prompt_tuning.commands.sweep import expansion
from prompt_tuning.commands.sweep.sweep import SCALES, bound
from prompt_tuning.config import files as config_files
from prompt_tuning.data import batches, context, dataset_checks
from prompt_tuning.data.verbalizers import get_verbalizers
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.errors import DataError
from prompt_tuning.launch.studies.ladder import RUNGS
from prompt_tuning.run.optimizer_start import starting_from
from tests import tiny_run
from tests.gin_runs import CONFIGS, resolve
from tests.helpers import SHARED, requires_shared

FOLDER = config_files.PACKAGE_CONFIGS / "paper"
PAPER = f"{CONFIGS}/paper"
SWEEPS = sorted(path.stem for path in FOLDER.glob("*.gin") if path.stem != "released_prompts")
TASKS = sorted(path.stem for path in (FOLDER / "tasks").glob("*.gin"))


@pytest.fixture(scope="module")
def cells_of(tiny_vocabulary):
    """A function from a sweep and a scale to the cells, unchecked, with the flags that the sweep's comment names."""

    @functools.cache
    def cells_of(name, scale):
        # Folders need not hold anything.
        needed = {}
        if scale == "t5gemma":
            needed["T5GEMMA_DIR"] = "/models"
        if scale in ("full", "t5gemma"):
            needed["seqio.SentencePieceVocabulary.sentencepiece_model_file"] = tiny_vocabulary
        if name == "real_data":
            needed["TASK_DATA_DIR"] = tiny_vocabulary.parent
        if name == "figure_3d" and scale == "full":
            needed["ADAPTED_DIR"] = "gs://bucket/adapted"
        flags = [
            (f"{name} = '{value}'", f"--gin.{name}='{value}'") for name, value in needed.items()
        ]
        sweep, others = expansion.read_sweep(f"{PAPER}/{name}.gin", scale, flags)
        return expansion.combine(sweep, scale, others)

    return cells_of


def covering(cells):
    """A few cells in which every value of every axis occurs."""
    seen, chosen = set(), []
    for cell in cells:
        new = set(cell.axes.items()) - seen
        if new:
            seen |= new
            chosen.append(cell)
    return chosen


# T5Gemma has no steps of LM adaptation.
@pytest.mark.parametrize(
    ("name", "scale"),
    [pair for pair in itertools.product(SWEEPS, SCALES) if pair != ("figure_3d", "t5gemma")],
)
def test_every_value_of_every_axis_resolves(name, scale, cells_of):
    cells = cells_of(name, scale)
    keys = {expansion.check(cell).cell.key for cell in covering(cells)}
    assert {cell.sweep for cell in cells} == {name}
    # A value that changed nothing would measure nothing; seeds do so where nothing is trained.
    assert len(keys) == len(covering(cells))
    # Where every cell says how, a reader can tell from the row alone.
    assert all({"size", "method"} <= set(cell.axes) for cell in cells)


@pytest.fixture
def arguments_of(cells_of):
    """A function from a sweep, a scale and values of axes to what the run of the first such cell is given."""

    def arguments_of(name, scale, **axes):
        cell = next(c for c in cells_of(name, scale) if axes.items() <= c.axes.items())
        return expansion.resolve(cell, "/out").arguments()

    return arguments_of


@pytest.mark.parametrize("scale", ["full", "mini"])
def test_methods_differ_in_what_they_train_and_start_from(scale, arguments_of):
    prompt = arguments_of("figure_1", scale, method="prompt")
    model = arguments_of("figure_1", scale, method="model")
    multitask = arguments_of("figure_1_multitask", scale)
    rates = [a["trainer"].learning_rate_fn(9) for a in (prompt, model, multitask)]
    assert rates == pytest.approx([0.3, 1e-3, 1e-3])
    assert [a["trainable_regex"] for a in (prompt, model, multitask)] == [
        [".*/prompt/.*"],
        [".*"],
        [".*"],
    ]
    paths = [a["checkpoint_cfg"].restore.path for a in (prompt, model, multitask)]
    assert paths[1] == paths[2] != paths[0]
    assert ("lm100k" in paths[0]) or ("adapted" in paths[0])
    assert {a["relative_steps"] for a in (prompt, model, multitask)} == {
        {"full": 30_000, "mini": 400}[scale]
    }
    sizes = [a["train_dataset_cfg"].batch_size for a in (prompt, model, multitask)]
    assert sizes == {"full": [32, 128, 2048], "mini": [16, 16, 32]}[scale]
    assert prompt["model"].prompt.length == {"full": 100, "mini": 20}[scale]
    assert model["model"].prompt is None and multitask["model"].prompt is None


def test_figure_1_takes_t5gemmas_as_sizes(cells_of, arguments_of):
    sizes = list(dict.fromkeys(cell.axes["size"] for cell in cells_of("figure_1", "t5gemma")))
    assert sizes == ["s", "b", "l", "ml", "xl", "2b", "9b"]
    prompt, model = (
        arguments_of("figure_1", "t5gemma", size="s", method=method)
        for method in ("prompt", "model")
    )
    assert prompt["model"].config.num_encoder_layers == 8 and prompt["model"].config.ids.start == 2
    paths = [given["checkpoint_cfg"].restore.path for given in (prompt, model)]
    assert paths == ["/models/t5gemma-s-s-prefixlm", "/models/t5gemma-s-s-ul2"]


@pytest.mark.parametrize("scale", ["full", "mini"])
def test_ablations_change_one_thing(scale, cells_of, arguments_of):
    inits = [
        type(arguments_of("figure_3b", scale, init=init)["model"].prompt.prompt_init)
        for init in ("random_uniform", "sampled_vocab", "class_label")
    ]
    assert [kind.__name__ for kind in inits] == ["Uniform", "SampledVocab", "ClassLabels"]
    by_objective = {
        name: arguments_of("figure_3c", scale, objective=name)
        for name in ("span_corruption", "span_corruption_sentinel", "lm_adaptation")
    }
    plain, sentinel, adapted = by_objective.values()
    same = plain["checkpoint_cfg"].restore.path
    assert same == sentinel["checkpoint_cfg"].restore.path != adapted["checkpoint_cfg"].restore.path
    names = [a["train_dataset_cfg"].mixture_or_task_name for a in by_objective.values()]
    assert names[1] == f"{names[0]}_sentinel" and names[0] == names[2]
    steps = list(dict.fromkeys(c.axes["adapt_steps"] for c in cells_of("figure_3d", scale)))
    paths = [
        arguments_of("figure_3d", scale, adapt_steps=step)["checkpoint_cfg"].restore.path
        for step in steps
    ]
    assert len(set(paths)) == 4 and paths[0] == same
    assert paths[3] == adapted["checkpoint_cfg"].restore.path


@pytest.mark.parametrize("scale", SCALES)
def test_searched_schedules_begin_with_the_run(scale, cells_of, arguments_of):
    """The learning rate counts from the step that the optimizer is said to have taken, far behind any warm-up."""
    settings = {c.axes["setting"] for c in cells_of("appendix_search", scale)}
    schedules = {s for s in settings if s.startswith(("warmup", "decay"))}
    assert len(schedules) == 8
    for setting in schedules:
        given = arguments_of("appendix_search", scale, setting=setting)
        trainer, _ = starting_from(given["trainer"], None, {})
        first, last = (float(trainer.learning_rate_fn(s)) for s in (1, given["relative_steps"]))
        if setting.startswith("warmup"):
            assert first < 0.02 < last == pytest.approx(0.3)
        else:
            assert first == pytest.approx(0.3) and 0 < last < 0.1


def test_rungs_name_the_checkpoints_that_the_ladder_leaves():
    compared = 0
    for size, rung in RUNGS.items():
        stop = rung.adapt_steps // rung.adapt_stops
        files = [
            f"{PAPER}/sizes/{size}.gin",
            f"{PAPER}/runs/prompt.gin",
            f"{PAPER}/tasks/synthetic_rte.gin",
        ]

        def path_of(macro, files=files):
            settings = {
                "LADDER_DIR": "'/ladder'",
                "MODEL_DIR": "'/run'",
                "TASK_FEATURE_LENGTHS": "{'inputs': 8, 'targets': 8}",
                "INITIAL_CHECKPOINT_PATH": f"%{macro}",
            }
            return resolve(files, settings).arguments()["checkpoint_cfg"].restore.path

        home = f"/ladder/{size}"
        assert path_of("SPAN_CORRUPTION_CHECKPOINT") == (
            f"{home}/pretrained/checkpoint_{rung.pretrain_steps}"
        )
        assert path_of("LM_ADAPTED_CHECKPOINT") == f"{home}/adapted/checkpoint_{rung.adapt_steps}"
        for percent in (1, 5):
            path = path_of(f"LM_ADAPTED_{percent}_PERCENT_CHECKPOINT")
            step = int(path.removeprefix(f"{home}/adapted/checkpoint_"))
            assert step % stop == 0 and step == percent * rung.pretrain_steps // 100
            compared += 1
    assert compared == 2 * len(RUNGS)


@pytest.mark.parametrize("name", ["figure_1", "figure_3c", "figure_3d"])
def test_in_miniature_every_model_comes_with_the_package(name):
    """These three start from every checkpoint that any sweep does."""
    sweep, flags = expansion.read_sweep(f"{PAPER}/{name}.gin", "mini", [])
    shipped = set()
    for cell in expansion.combine(sweep, "mini", flags):
        # On task and seed no path depends.
        if (cell.axes["task"], cell.axes["seed"]) != ("synthetic_sentiment", "0"):
            continue
        arguments = expansion.resolve(cell, "/out").arguments()
        restore = arguments.get("restore_checkpoint_cfg") or arguments["checkpoint_cfg"].restore
        source = open_source(restore.path, mode=restore.mode)
        assert isinstance(source, weights.WeightsSource)
        model = arguments["model"]
        assert source.shapes()["token_embedder/embedding"][0] == (
            model.input_vocabulary.vocab_size,
            model.config.emb_dim,
        )
        shipped.add(restore.path)
    assert len(shipped) >= 6 and all(p.startswith(ladder.LADDER) for p in shipped)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_registered_with_these_labels(name):
    macros = {
        s.selector: s.value
        for s in config_files.read([f"{PAPER}/tasks/{name}.gin"]).statements
        if isinstance(s, config_files.Binding) and not s.arg
    }
    for module in (macros["MIXTURE_OR_TASK_MODULE"], "prompt_tuning.tasks.sentinel_targets"):
        __import__(module)
    known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    named = [macros[macro] for macro in macros if macro.endswith("TASK")]
    assert "TASK" in macros and set(named) <= known
    labels = get_verbalizers(macros["TASK"])
    if labels:
        assert tuple(macros["CLASS_LABELS"]) == tuple(labels)
        assert macros.get("RANKED_TASK", "_rank").endswith("_rank")
    assert "TASK_FEATURE_LENGTHS" in macros


@pytest.mark.parametrize(
    "size",
    ["small", *(pytest.param(s, marks=pytest.mark.slow) for s in ("base", "large", "xl", "xxl"))],
)
def test_table_4_counts_what_the_paper_prints(size, cells_of):
    cells = [c for c in cells_of("table_4", "full") if c.axes["size"] == size]
    frozen = None
    # The longest first, with all its layers. On them no prompt depends: the others are counted with one, in less time.
    for cell in reversed(cells):
        if frozen is not None:
            one = {"NUM_ENCODER_LAYERS": 1, "NUM_DECODER_LAYERS": 1}
            run = cell.run + expansion.Change((), tuple(map(bound, one, one.values())))
            cell = dataclasses.replace(cell, run=run)
        model, regex = expansion.countable(cell)
        is_trainable = tree.match_any(regex)
        sizes = {path: math.prod(leaf.shape) for path, leaf in model.param_shapes.items()}
        trainable = sum(n for path, n in sizes.items() if is_trainable(path))
        frozen = frozen or sum(sizes.values()) - trainable
        expected = published.table_4(size, int(cell.axes["length"]))
        assert (trainable, frozen + trainable) == (
            expected["trainable"].sort,
            expected["total"].sort,
        )
    assert [int(c.axes["length"]) for c in cells] == [1, 5, 20, 50, 100, 150]


@pytest.mark.slow
@requires_shared
def test_real_data_is_read_from_the_original_files():
    assert SHARED is not None
    data = SHARED / "data"
    vocabulary = sentencepiece_vocabulary(str(data / "t5_tokenizer" / "spiece.model"))
    flags = []
    for name, folder in (("TASK_DATA_DIR", "superglue"), ("SST2_DATA_DIR", "glue")):
        flags.append((f"{name} = '{data / folder}'", f"--gin.{name}=..."))
    sweep, others = expansion.read_sweep(f"{PAPER}/real_data.gin", "mini", flags)
    read = []
    for cell in expansion.combine(sweep, "mini", others):
        if cell.axes["task"] in read:
            continue
        cfg = expansion.resolve(cell, "/out").arguments()["train_eval_dataset_cfg"]
        context.set_context(vocabulary=vocabulary)
        dataset_checks.check_dataset(cfg)
        batch = next(batches.eval_batches(cfg, num_batches=1))
        assert (batch["decoder_target_tokens"] > 0).sum() >= 2 * cfg.batch_size
        read.append(cell.axes["task"])
    context.set_context()
    assert read == ["sst2", "cb", "rte", "wic"]


TEXT = "Is the answer to this question true or false?"


def test_a_text_prompt_is_as_long_as_its_text(tiny_vocabulary):
    settings = {
        "PROMPT_TEXT": repr(TEXT),
        "MIXTURE_OR_TASK_NAME": "'synthetic_rte_rank'",
        "CHECKPOINT_PATH": "'/checkpoint'",
        "EVAL_OUTPUT_DIR": "'/out'",
        "seqio.SentencePieceVocabulary.sentencepiece_model_file": f"'{tiny_vocabulary}'",
    }
    files = [f"{CONFIGS}/models/t5_1_1_small_prompt.gin", f"{CONFIGS}/runs/text_prompt_eval.gin"]
    resolved = resolve(files, settings, "eval")
    prompt = resolved.arguments()["model"].prompt
    tokens = seqio.SentencePieceVocabulary(str(tiny_vocabulary)).encode(TEXT)
    assert resolved.warnings == () and prompt.prompt_init.text == TEXT
    assert prompt.length == len(tokens) > 5
    missing = settings | {"seqio.SentencePieceVocabulary.sentencepiece_model_file": "'/none'"}
    with pytest.raises(DataError, match="vocabulary file does not exist"):
        resolve(files, missing, "eval").arguments()


@pytest.mark.slow
def test_a_text_prompt_is_what_the_model_reads_with_the_text_in_front(tmp_path):
    """The same task twice: with the text in the data and no prompt, and without, and the text as the prompt."""
    inputs = tiny_run.make_inputs(tmp_path, validation=1)
    rows = [
        {"text": t, "label": n % 2}
        for n, t in enumerate(["a good book", "the old mill is a mill"] * 4)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {}
    for run, template in (("frozen", f"{TEXT} {{text}}"), ("text_prompt", "{text}")):
        settings = {
            "CHECKPOINT_PATH": str(inputs.checkpoint),
            "EVAL_OUTPUT_DIR": str(tmp_path / run),
            "BATCH_SIZE": 8,
            "ACTIVATION_DTYPE": "float32",
            "tasks.from_files.name": run,
            "tasks.from_files.validation": str(tmp_path / "rows.jsonl"),
            "tasks.from_files.inputs": template,
            "tasks.from_files.targets": "{label}",
            "tasks.from_files.label_map": {0: "false", 1: "true"},
            "tasks.from_files.metrics": ["accuracy"],
            "MIXTURE_OR_TASK_NAME": f"{run}_rank",
        }
        if run == "text_prompt":
            settings["PROMPT_TEXT"] = TEXT
        files = ("models/t5_1_1_small_prompt.gin", f"runs/{run}_eval.gin")
        argv = ["eval", *(f"--gin_file={name}" for name in files), *inputs.flags(**settings)]
        assert cli.main(argv) == 0
        (path,) = (tmp_path / run / "inference_eval").glob(f"{run}_rank-1*.jsonl")
        found[run] = [json.loads(line)["score"] for line in path.read_text().splitlines()]
    assert len(found["frozen"]) == 2 * len(rows) and len(set(found["frozen"])) == 4
    np.testing.assert_allclose(found["text_prompt"], found["frozen"], rtol=1e-5)
