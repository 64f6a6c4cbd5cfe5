"""EleutherAI's lm-evaluation-harness with the model `prompt_tuning`: `python -m prompt_tuning.lm_eval --model …`.

The harness knows the models that it ships and those of modules that were imported before it looks one up, so this is
its own command line with one model more. From Python, importing this module is enough.
"""

import collections
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from prompt_tuning import predict
from prompt_tuning.data import example_tasks
from prompt_tuning.data.inference_examples import model_features
from prompt_tuning.data.vocabularies import end_of
from prompt_tuning.errors import ConfigError, PromptTuningError, check_choice
from prompt_tuning.types import TASK

# What T5 was pre-trained on, and the harness's own model of a T5 takes, in tokens.
_INPUT_LENGTH = 512
_MAX_GENERATED = 256
_GIN = "gin."
# The harness hands these to every model; JAX chooses the device.
_OF_TORCH = ("device", "max_batch_size")


class PromptTuningLM(TemplateLM):
    """A frozen T5, with what was tuned for it or without, as the harness asks models.

    Requests mean what they mean to the harness's `hf` model of an encoder-decoder: the context is the input, with EOS;
    the continuation, which is scored, has none; an empty context is EOS alone. Of a context that is too long the last
    tokens are kept.

    Args:
      run: A MODEL_DIR; its latest checkpoint, or `checkpoint`, is taken with the weights it names.
      gin_file: In place of `run`, the file of a model, or several.
      checkpoint: A `checkpoint_{step}` of the run.
      initial_checkpoint: Where the run's frozen weights are now, if they were moved.
      allow_imports: Modules that the run's `config.gin` may import.
      task: Of all requests, for a run whose method has a prompt for each task.
      max_length: Tokens of a context at most; None for those of TASK_FEATURE_LENGTHS, or 512.
      batch_size: Rows computed at once.
      **others: `gin.NAME` with `gin_file`: values such as `gin.CHECKPOINT_PATH`.

    Raises:
      ConfigError, CheckpointError: If an argument is wrong, or as `predict.load_run` and `predict.load_model`.

    Source: `lm_eval.models.huggingface.HFLM` with `backend="seq2seq"`. Differs: at most `max_gen_toks` tokens are
    generated, where that model adds the length of the longest context of a batch; texts are decoded as the model's
    `decode_fn` says, and cut at the first stop, but not ended by it; a task's inputs may have no EOS; ids of special
    pieces that stand in a text as words (`</s>`) are not read as such.
    """

    backend = "seq2seq"

    def __init__(
        self,
        run: str | None = None,
        *,
        gin_file: str | Sequence[str] | None = None,
        checkpoint: str | None = None,
        initial_checkpoint: str | None = None,
        allow_imports: str | Sequence[str] = (),
        task: str | None = None,
        max_length: int | None = None,
        batch_size: int | str = 1,
        **others: Any,
    ):
        super().__init__()
        bindings = {n.removeprefix(_GIN): x for n, x in others.items() if n.startswith(_GIN)}
        for name in others:
            if not name.startswith(_GIN):
                known = [*_OF_TORCH, "run", "gin_file", "checkpoint", "initial_checkpoint"]
                check_choice("model_args", name, [*known, "allow_imports", "task", "max_length"])
        of_the_other = bindings if run is not None else checkpoint or initial_checkpoint
        if (run is None) == (gin_file is None) or of_the_other:
            raise ConfigError(
                "model_args name no model, or two",
                got=f"run = {run}, gin_file = {gin_file}, {of_the_other or 'no more'}",
                expected="run=MODEL_DIR, or gin_file=FILE with gin.CHECKPOINT_PATH=PATH",
                fix="give one of the two, and what belongs to it",
            )
        rows = _number("batch_size", batch_size)
        width = None if max_length is None else _number("max_length", max_length)
        if run is not None:
            self._run = predict.load_run(
                run,
                checkpoint=checkpoint,
                initial_checkpoint=initial_checkpoint,
                batch_size=rows,
                allow_imports=_listed(allow_imports),
            )
        else:
            self._run = predict.load_model(_listed(gin_file or ()), bindings, batch_size=rows)
        self.max_length = width or self._run.lengths.get("inputs", _INPUT_LENGTH)
        self._of_task = self._number_of(task)

    def _number_of(self, task: str | None) -> dict[str, np.ndarray]:
        """The feature that says which task requests are of; empty where the model tells none apart."""
        model = self._run.model
        told_apart = model.method.task_names if model.method else ()
        if not told_apart and task is None:
            return {}
        check_choice("model_args task", task, example_tasks.all_names(told_apart))
        return {TASK: np.asarray(example_tasks.number_of(str(task), told_apart))}

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return end_of(self._run.model.output_vocabulary)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Returns the ids of a text, with EOS unless `add_special_tokens` or the inputs of the run's task say no."""
        del kwargs
        ends = self._run.inputs_end if add_special_tokens is None else add_special_tokens
        ids = self._run.model.input_vocabulary.encode(string)
        return [*ids, self.eot_token_id] if ends else ids

    def _features(
        self, context: Sequence[int], target: Sequence[int] = (), width: int = 1
    ) -> dict[str, np.ndarray]:
        """Model features of one request."""
        lengths = {"inputs": self.max_length, "targets": width}
        return {**model_features(context[-self.max_length :], target, lengths), **self._of_task}

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """The log-likelihood in nats of each continuation, and whether greedy decoding would give it."""
        del kwargs
        width = max((len(target) for _, _, target in requests), default=1)
        examples = (self._features(context, target, width) for _, context, target in requests)
        found = self._run.inference.compare(self._run.params, enumerate(examples))
        return [(score, is_greedy) for _, score, is_greedy in found]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Returns the log-likelihood in nats of each text as targets of an empty input.

        A text longer than `max_length` is cut into windows; the input of each but the first is the token before it.
        """
        del disable_tqdm
        windows, owners = [], []
        for owner, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0], add_special_tokens=True)
            for pair in utils.get_rolling_token_windows(
                tokens, self.prefix_token_id, self.max_length, context_len=1
            ):
                windows.append((None, *utils.make_disjoint_window(pair)))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (score, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += score
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Returns the decoded answer to each context, up to the first of its stops.

        Raises:
          ConfigError: If a task asks for a way of decoding, which is the model's.
        """
        del disable_tqdm
        of_length: dict[int, list[int]] = collections.defaultdict(list)
        stops: list[list[str]] = []
        for position, request in enumerate(requests):
            arguments: Any = request.args
            wanted: dict[str, Any] = dict(normalize_gen_kwargs(arguments[1], _MAX_GENERATED))
            _check_greedy(wanted)
            stops.append(wanted["until"])
            of_length[wanted["max_gen_toks"]].append(position)
        texts = [""] * len(requests)
        for length, positions in of_length.items():
            contexts = ((i, self.tok_encode(requests[i].args[0])) for i in positions)
            examples = ((i, self._features(context)) for i, context in contexts)
            found, _ = self._run.inference.predict_with_aux(self._run.params, examples, length)
            for i, ids in found:
                texts[i] = postprocess_generated_text(self._text(ids), stops[i], None)
        return texts

    def _text(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special pieces, unknown ones and sentinels."""
        vocabulary = self._run.model.output_vocabulary
        num_pieces = vocabulary.vocab_size - vocabulary.extra_ids
        special = (vocabulary.pad_id, vocabulary.unk_id)
        return vocabulary.decode([i for i in ids if i < num_pieces and i not in special])


register_model("prompt_tuning")(PromptTuningLM)


def _check_greedy(wanted: Mapping[str, Any]) -> None:
    """Raises ConfigError for settings of generation other than its length and its stops."""
    allowed = {"until": None, "max_gen_toks": None, "do_sample": False, "temperature": 0.0}
    for name, value in wanted.items():
        if name not in allowed or (allowed[name] is not None and value != allowed[name]):
            raise ConfigError(
                f"The task or --gen_kwargs sets how to decode: {name}",
                got=value,
                expected="`until` and `max_gen_toks`; models.EncoderDecoderModel.decode_fn says how",
                fix="leave it out, or bind decode_fn in a gin file (configs/models/decoding)",
            )


def _listed(names: str | Sequence[str]) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def _number(name: str, value: int | str) -> int:
    """A positive number, which the harness's command line may hand over as text."""
    if not str(value).isdecimal() or not int(value):
        raise ConfigError(
            f"{name} is no number",
            got=value,
            expected="a whole number of at least 1",
            fix=f"give --{name} a number" if name == "batch_size" else f"give model_args {name}=N",
        )
    return int(value)


def main() -> int:
    """Runs the harness's command line; exit code 2, without a traceback, for an error that the user can mend."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
