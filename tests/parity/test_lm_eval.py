"""The model for lm-evaluation-harness against the harness's own, of the same weights."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-evaluation-harness comes with the extra [lm-eval]")
torch = pytest.importorskip("torch", reason="PyTorch comes with the extra [hf]")
pytest.importorskip("peft", reason="PEFT comes with the extra [hf]")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models import huggingface as harness  # noqa: E402

from prompt_tuning import lm_eval  # noqa: E402
from prompt_tuning.checkpoints.prompt_files import write as prompt_writer  # noqa: E402
from tests.helpers import ENGLISH, train_sentencepiece  # noqa: E402
from tests.parity import huggingface, peft  # noqa: E402

pytestmark = [
    # PEFT asks for a property that transformers 5 has renamed.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]
MAX_LENGTH = 16
CASE = huggingface.CASES["t5_1_1"]
SIZES = {
    "NUM_EMBEDDINGS": 356,  # T5's tokenizer adds 100 ids to the 256 of the vocabulary.
    "EMBED_DIM": CASE.fields["d_model"],
    "NUM_HEADS": CASE.fields["num_heads"],
    "HEAD_DIM": CASE.fields["d_kv"],
    "MLP_DIM": CASE.fields["d_ff"],
    "NUM_ENCODER_LAYERS": 2,
    "NUM_DECODER_LAYERS": 2,
    "ACTIVATION_DTYPE": "float32",
}
# Contexts of one and of more tokens than fit, with spaces at the end, and none; several continuations of one.
PAIRS = [
    *((text, answer) for text in ENGLISH[:5] for answer in (" yes", " the old mill")),
    ("", "a bad film"),
    ("a question:  ", "true"),
    ("x", "s"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a random T5 1.1 of transformers, a prompt as an adapter, and the gin file of the model."""
    folder = tmp_path_factory.mktemp("saved")
    fields = {**CASE.fields, "vocab_size": SIZES["NUM_EMBEDDINGS"]}
    model = huggingface.build(dataclasses.replace(CASE, fields=fields))
    huggingface.save(model, folder / "model")
    vocabulary = train_sentencepiece(folder / "model" / "spiece.model")
    prompt = peft.draw_prompt(model.config.d_model)
    prompt_writer.write_prompt(folder / "adapter", prompt, {}, file_format="peft")
    settings = SIZES | {
        "seqio.SentencePieceVocabulary.sentencepiece_model_file": str(vocabulary),
        "seqio.SentencePieceVocabulary.extra_ids": 100,
    }
    lines = ["include 'models/t5_1_1_prompt.gin'", *(f"{n} = {x!r}" for n, x in settings.items())]
    (folder / "tiny.gin").write_text("\n".join(lines))
    return SimpleNamespace(folder=folder, prompt=prompt, head=model.lm_head.weight.detach())


def _ours(saved, **bindings):
    settings = {"CHECKPOINT_PATH": str(saved.folder / "model"), **bindings}
    named = {f"gin.{name}": value for name, value in settings.items()}
    named["gin.utils.RestoreCheckpointConfig.dtype"] = "float32"
    gin_file = str(saved.folder / "tiny.gin")
    return lm_eval.PromptTuningLM(gin_file=gin_file, max_length=MAX_LENGTH, batch_size=4, **named)


def _theirs(saved, **settings):
    # Its decorator hides what it takes.
    make: Any = harness.HFLM
    made = make(str(saved.folder / "model"), device="cpu", max_length=MAX_LENGTH, **settings)
    base = made.model.get_base_model() if "peft" in settings else made.model
    # The harness ties the head of every T5 to its embedding table, with transformers 5 that of T5 1.1 too.
    base.lm_head.weight = torch.nn.Parameter(saved.head.clone())
    return made


def _ask(model, kind, requests):
    instances = [Instance(kind, {}, arguments, i) for i, arguments in enumerate(requests)]
    return getattr(model, kind)(instances, disable_tqdm=True)


@pytest.mark.parametrize(
    "has_prompt", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["prompt", "alone"]
)
def test_every_request_is_answered_as_by_the_harness_own_model(saved, has_prompt):
    if has_prompt:
        adapter = str(saved.folder / "adapter")
        ours = _ours(saved, PROMPT_FILE=adapter, PROMPT_LENGTH=len(saved.prompt))
        theirs = _theirs(saved, peft=adapter, batch_size=4)
        # PEFT puts the prompt in front of the padding, which the harness has on the left where it generates.
        generating = _theirs(saved, peft=adapter)
    else:
        ours, theirs = _ours(saved, PROMPT=None), _theirs(saved, batch_size=4)
        generating = theirs

    contexts = [(text, {"until": ["zzz"], "max_gen_toks": 6}) for text in ENGLISH[:6]]
    answers = _ask(ours, "generate_until", contexts)
    # They generate as many more tokens as their contexts have.
    longer = _ask(generating, "generate_until", contexts)
    assert [text[: len(answer)] for text, answer in zip(longer, answers, strict=True)] == answers
    assert len(set(answers)) > 3 and all(len(answer) > 5 for answer in answers)
    stops = [(text, {"until": [a[3:5], "\n"]}) for text, a in zip(ENGLISH, answers, strict=False)]
    cut = _ask(ours, "generate_until", stops)
    assert cut == _ask(generating, "generate_until", stops)
    assert cut == [a.split(a[3:5])[0] for a in answers]

    # Of what is generated the first word is what greedy decoding gives.
    firsts = [(text, answer.split()[0]) for text, answer in zip(ENGLISH, answers, strict=False)]
    pairs = [*PAIRS, *firsts]
    mine, other = (_ask(model, "loglikelihood", pairs) for model in (ours, theirs))
    assert [score for score, _ in mine] == pytest.approx([s for s, _ in other], abs=1e-4, rel=0)
    assert [is_greedy for _, is_greedy in mine] == [is_greedy for _, is_greedy in other]
    assert {True, False} == {is_greedy for _, is_greedy in mine}

    texts = [(" ".join(ENGLISH[:3]),), ("short",)]
    mine, other = (_ask(model, "loglikelihood_rolling", texts) for model in (ours, theirs))
    assert mine == pytest.approx(other, abs=1e-4 * MAX_LENGTH, rel=0)
