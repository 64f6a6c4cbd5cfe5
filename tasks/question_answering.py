"""SQuAD 1.1 and MRQA: train on the first, evaluate on MRQA's out-of-domain sets, or train on its others.

- `squad_v010_allanswers` as in T5, `squad_v010_context_free` without the text, and `mrqa_{name}_v100` for the sets of
  `MRQA` and `MRQA_IN_DOMAIN`; again with the suffix `_examples`, which shows examples in TensorBoard, and with `mt5_`
  or `byt5_` in front.
- The mixtures `squad_to_{name}` and `squad_to_mrqa` train on SQuAD and evaluate on one of `MRQA`, or on all; again with
  `_examples`, `mt5_` and `byt5_`.
- The mixture `mrqa_v100_proportional` trains on all of `MRQA_IN_DOMAIN`: a source on which a prompt is trained that
  starts others.

SQuAD has no form without the task's name: T5 writes none in front.
"""

from typing import Any

from prompt_tuning.data import answer_metrics
from prompt_tuning.data.benchmarks import nested_files, reading
from prompt_tuning.data.benchmarks.data_sets import EXAMPLES, MODELS, DataSet, register
from prompt_tuning.data.benchmarks.nested_files import NestedFormat
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.data.registry import register_mixture

# Out-of-domain set's name in a task -> name of the original file.
MRQA = {
    "bio_asq": "BioASQ",
    "drop": "DROP",
    "duo_rc": "DuoRC.ParaphraseRC",
    "race": "RACE",
    "relation_extraction": "RelationExtraction",
    "textbook_qa": "TextbookQA",
}
# The sets of MRQA that are trained on, below `train` and `dev`.
MRQA_IN_DOMAIN = {
    "squad": "SQuAD",
    "news_qa": "NewsQA",
    "trivia_qa": "TriviaQA-web",
    "search_qa": "SearchQA",
    "hotpot_qa": "HotpotQA",
    "natural_questions": "NaturalQuestionsShort",
}
# Questions of their training sets, https://arxiv.org/abs/1910.09753.
MRQA_RATES = {
    "squad": 86_588,
    "news_qa": 74_160,
    "trivia_qa": 61_688,
    "search_qa": 117_384,
    "hotpot_qa": 72_928,
    "natural_questions": 104_071,
}
# Name of SQuAD's task -> what it shows.
FORMS = {
    "allanswers": reading.squad_text(),
    "context_free": reading.squad_text(has_context=False),
}
_SHOWN = ("targets_pretokenized", "context", "question", "answers")
_TEXTS = {"context": "U.S. (est. 1776)", "question": "When?"}


def _answers(
    name: str, local: NestedFormat, to_text: TextPreprocessor, probe: dict[str, Any], **changes: Any
) -> DataSet:
    """A data set that is answered in free text."""
    return DataSet(
        name,
        local,
        lambda _: to_text,
        (probe,),
        postprocess_fn=reading.all_answers,
        metric_fns=(answer_metrics.squad,),
        example_fields=_SHOWN,
        format_fn=answer_metrics.format_answers,
        is_right=answer_metrics.is_right,
        **changes,
    )


SQUAD = _answers(
    "squad",
    NestedFormat(
        "SQuAD",
        ".json",
        nested_files.squad,
        stems=(("train", ("train-v1.1", "train")), ("validation", ("dev-v1.1", "dev"))),
    ),
    FORMS["allanswers"],
    {**_TEXTS, "id": "a", "title": "b", "answers": {"text": ["1776.", "in 1776"]}},
    splits=("train", "validation"),
)


def _mrqa(name: str, stems: Any, splits: Any) -> DataSet:
    """A set of MRQA."""
    return _answers(
        name,
        NestedFormat("MRQA", ".jsonl.gz", nested_files.mrqa, stems=stems),
        reading.mrqa_text(),
        {**_TEXTS, "qid": "a", "answers": ["1776.", "in 1776"]},
        splits=splits,
    )


MRQA_SETS = {
    # The out-of-domain sets have one split, which TensorFlow Datasets calls test.
    **{
        name: _mrqa(name, (("validation", (file,)),), {"validation": "test"})
        for name, file in MRQA.items()
    },
    **{
        name: _mrqa(
            name,
            (("train", (f"train/{file}",)), ("validation", (f"dev/{file}",))),
            ("train", "validation"),
        )
        for name, file in MRQA_IN_DOMAIN.items()
    },
}

for _model in MODELS:
    for _suffix in ("", EXAMPLES):
        for _name, _to_text in FORMS.items():
            register(
                SQUAD,
                f"{_model}squad_v010_{_name}{_suffix}",
                tfds_name="squad/v1.1:3.0.0",
                to_text=_to_text,
                log_examples=bool(_suffix),
            )
        _evaluated = {name: f"{_model}mrqa_{name}_v100{_suffix}" for name in MRQA}
        for _name, _data in MRQA_SETS.items():
            register(
                _data,
                f"{_model}mrqa_{_name}_v100{_suffix}",
                tfds_name=f"mrqa/{_name}:1.0.0",
                to_text=_data.text(""),
                log_examples=bool(_suffix),
            )
        register_mixture(
            f"{_model}mrqa_v100_proportional{_suffix}",
            {f"{_model}mrqa_{name}_v100{_suffix}": float(n) for name, n in MRQA_RATES.items()},
        )
        _trained = f"{_model}squad_v010_allanswers{_suffix}"
        for _name, _tasks in (*_evaluated.items(), ("mrqa", None)):
            _others = [_tasks] if _tasks else list(_evaluated.values())
            register_mixture(f"{_model}squad_to_{_name}{_suffix}", [_trained, *_others])
