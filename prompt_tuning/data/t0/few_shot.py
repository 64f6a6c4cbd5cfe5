"""T-Few's few-shot sets as tasks: `few_shot` in Python, `@tasks.few_shot()` in gin."""

from collections.abc import Sequence

import seqio
from etils import epath

from prompt_tuning.data import home
from prompt_tuning.data.registry import make_task, replace_mixture, replace_task
from prompt_tuning.data.t0.data_sets import DataSet, data_sets
from prompt_tuning.data.t0.mixtures import Member
from prompt_tuning.data.t0.sources import HubDataSource, JsonlDataSource
from prompt_tuning.data.templates import origins
from prompt_tuning.data.templates.read import Template, read_templates
from prompt_tuning.data.templates.tasks import SCORE_EVAL, score_task, to_text
from prompt_tuning.errors import ConfigError, DataError, check_choice, check_count

PREFIX = "tfew_"
# Name of a set -> data set, its split that T-Few evaluates on, and how many of its templates T-Few takes.
_SETS: dict[str, tuple[str, str, int | None]] = {
    "anli-r1": ("anli r1", "test", None),
    "anli-r2": ("anli r2", "test", None),
    "anli-r3": ("anli r3", "test", None),
    "boolq": ("super_glue/boolq", "validation", None),
    "cb": ("super_glue/cb", "validation", None),
    "copa": ("super_glue/copa", "validation", 8),
    "h-swag": ("hellaswag", "validation", None),
    "rte": ("super_glue/rte", "validation", None),
    "sst2": ("glue/sst2", "validation", None),
    # Its training examples are those of the validation split, the only ones with labels but for the test split's.
    "storycloze": ("story_cloze/2016", "test", None),
    "wic": ("super_glue/wic", "validation", None),
    "winogrande": ("winogrande/winogrande_xl", "validation", None),
    "wsc": ("super_glue/wsc.fixed", "validation", None),
}
# The one set that T0 has not.
_SST2 = DataSet("glue", "sst2", "sentiment", "", "", 0, "nyu-mll/glue")


def few_shot(
    name: str,
    files: str,
    templates: str,
    seed: int = 42,
    data: str | None = None,
) -> str:
    """Registers a few-shot set of T-Few's: a task to train on, and one of each template to evaluate, in one mixture.

    The training task, `tfew_NAME_seed_SEED`, has the split `train` alone. Each example is written by one of the
    templates of the original task, drawn anew in every epoch by the run's RANDOM_SEED, which also orders the examples.
    The tasks of evaluation, `tfew_TASK_score_eval`, have the split `validation` alone, and rank the choices of each
    example by their mean log-likelihood per token. Inputs end with EOS, unlike T0's.

    Args:
      name: A set, such as "copa".
      files: T-Few's folder `data/few_shot`, with `NAME/N_shot/SEED_seed.jsonl` in it.
      templates: promptsource's templates, as `read_templates` takes them.
      seed: Which file of the set.
      data: Where the data set to evaluate on is, as for `tasks.t0`: None for Hugging Face `datasets`, or a folder of
        JSONL files.

    Returns:
      The name of the mixture, `tfew_NAME_seed_SEED_and_evaluation`.

    Raises:
      ConfigError: The set is unknown, or the templates lack its data set.
      DataError: The set has no file of the seed, or the folder lacks the split.

    Source: T-Few's dataset_readers.py and data_module.py (114dece). Differs: which template an example takes follows
      from the run's seed, where T-Few draws from NumPy's global state.
    """
    check_choice("tasks.few_shot.name", name, _SETS)
    check_count("tasks.few_shot.seed", seed, "the file's name", at_least=0)
    place, split, num = _SETS[name]
    found = next(d for d in (*data_sets(), _SST2) if _place(d) == place)
    own = _original(found, templates)[:num]
    train = f"{PREFIX}{name.replace('-', '_')}_seed_{seed}"
    shots = JsonlDataSource({"train": _file(name, files, seed)})
    drawn = to_text(own, seed=seed)
    # Not cached: another template is drawn in each epoch.
    made = make_task(train, source=shots, to_text=drawn, has_cache=False, shuffle_buffer_size=1)
    source = _evaluated(found, split, data)
    replace_task(train, made)
    rates = {train: 1.0}
    for template in own:
        scored = f"{PREFIX}{found.task_name(template.name)}{SCORE_EVAL}"
        replace_task(scored, score_task(scored, source, template, length_normalized=True))
        origins.remember(scored, Member(found, template, 0.0, True).origin)
        rates[scored] = 0.0
    mixture = f"{train}_and_evaluation"
    replace_mixture(mixture, rates)
    return mixture


def _place(data: DataSet) -> str:
    """What `_SETS` calls a data set."""
    return " ".join(filter(None, (data.path, data.round)))


def _original(data: DataSet, templates: str) -> Sequence[Template]:
    """The templates of the data set's original task, sorted by name."""
    own = [t for t in read_templates(templates).get(data.key, []) if t.original_task]
    with_choices = [t for t in own if t.answer_choices]
    if not with_choices:
        raise ConfigError(
            f"{templates} has no templates of {data.path} with answer choices for its original task",
            got=f"{len(own)} templates of the original task",
            expected="one at least",
            fix="bind tasks.few_shot.templates to all of promptsource's templates",
        )
    return with_choices


def _file(name: str, files: str, seed: int) -> str:
    """The file of a set's examples."""
    folder = epath.Path(home.expand(files)) / name
    found = sorted(folder.glob("*_shot/*_seed.jsonl")) if folder.is_dir() else []
    mine = [path for path in found if path.name == f"{seed}_seed.jsonl"]
    if len(mine) != 1:
        raise DataError(
            f"{folder} has {'no' if not mine else 'more than one'} file of this seed",
            got=seed,
            expected=f"one of {', '.join(p.name.split('_')[0] for p in found)}"
            if found
            else "NAME/N_shot/SEED_seed.jsonl, as in T-Few's data/few_shot",
            fix="correct tasks.few_shot.seed" if found else "correct tasks.few_shot.files",
        )
    return str(mine[0])


def _evaluated(data: DataSet, split: str, folder: str | None) -> seqio.DataSource:
    """The source of the examples that are evaluated, as the split `validation`."""
    theirs = data.splits[split]
    if folder is None:
        return HubDataSource(data, {"validation": theirs})
    path = epath.Path(home.expand(folder)) / data.path / f"{theirs}.jsonl"
    if not path.exists():
        raise DataError(
            "The data set to evaluate on is not there",
            got=str(path),
            expected="a JSONL file of its records",
            fix="write it there, or correct tasks.few_shot.data",
        )
    return JsonlDataSource({"validation": str(path)})
