"""Texts and token ids: requests in the model's vocabulary, and answers as text while their tokens come."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from prompt_tuning.commands.serve.engine.requests import Token
from prompt_tuning.commands.serve.problems import Refused
from prompt_tuning.data.vocabularies import end_of, resolved
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel

# What a vocabulary writes for bytes that are no whole character yet.
_HALF = "\ufffd"


@dataclasses.dataclass(frozen=True)
class Texts:
    """What a model's vocabularies make of texts, as `infer` does of the rows of a file.

    Attributes:
      model: The model.
      inputs_end: Whether inputs end with EOS, as those of the task that the model learnt.
    """

    model: EncoderDecoderModel
    inputs_end: bool = True

    def prompts(self, prompt: str | Sequence[Any]) -> list[tuple[int, ...]]:
        """Returns the ids of each input of a request; ids that were sent as such are taken as they are.

        Raises:
          Refused: If an id is not in the vocabulary.
        """
        several = (
            prompt
            if not isinstance(prompt, str) and isinstance(prompt[0], str | list)
            else [prompt]
        )
        return [self.input_ids(x) if isinstance(x, str) else self._checked(x) for x in several]

    def input_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of an input, with EOS if inputs end so."""
        vocabulary = self.model.input_vocabulary
        return (*vocabulary.encode(text), *([end_of(vocabulary)] if self.inputs_end else []))

    def target_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a target, with EOS."""
        vocabulary = self.model.output_vocabulary
        return (*vocabulary.encode(text), end_of(vocabulary))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of an answer's ids."""
        return self.model.output_vocabulary.decode(ids)

    def added(self, before: Sequence[int], text: str, token: int) -> str:
        """Returns what a token adds to a text; its own name if that is nothing, as of EOS.

        Args:
          before: The ids of the text.
          text: The text.
          token: The token.
        """
        longer = self.decode([*before, token])
        if longer.startswith(text) and len(longer) > len(text):
            return longer[len(text) :]
        tokenizer = getattr(resolved(self.model.output_vocabulary), "tokenizer", None)
        if tokenizer is not None and token < tokenizer.GetPieceSize():
            return tokenizer.IdToPiece(token)
        return f"<{token}>"

    def _checked(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids, each of which the vocabulary has."""
        size = self.model.input_vocabulary.vocab_size
        if (largest := max(ids)) >= size:
            raise Refused(
                "`prompt` holds a token id that the vocabulary has not",
                got=largest,
                expected=f"0 to {size - 1}",
                fix="encode the text with the model's own vocabulary, or send it as text",
                param="prompt",
            )
        return tuple(ids)


class Answer:
    """One answer, as its tokens come.

    Args:
      texts: The vocabularies.
      stops: Texts before which it ends.
      alternatives: How many of the likeliest tokens are told; None tells no log-probabilities.

    Attributes:
      reason: Why it ended, "stop" or "length"; None as long as it goes on.
      num_tokens: Tokens so far.
    """

    def __init__(self, texts: Texts, stops: Sequence[str], alternatives: int | None):
        self.reason: str | None = None
        self._texts, self._stops, self._alternatives = texts, stops, alternatives
        self._ids: list[int] = []
        self._text = ""
        self._taken = 0
        self._logprobs = _no_logprobs()

    @property
    def num_tokens(self) -> int:
        """Tokens so far."""
        return len(self._ids)

    def add(self, token: Token) -> None:
        """Takes the next token; the answer ends if a stop text is whole with it."""
        if self._alternatives is not None:
            self._note(token, self._alternatives)
        self._ids.append(token.id)
        # All of it each time: a token's text depends on those before it, and answers are short.
        self._text = self._texts.decode(self._ids)
        found = [at for at in map(self._text.find, self._stops) if at >= 0]
        if found:
            self._text, self.reason = self._text[: min(found)], "stop"

    def take(self) -> dict[str, Any] | None:
        """Returns what came since this was last asked, as fields of OpenAI's `choice`; None if that is nothing.

        What may turn out to be the beginning of a stop text, or is half a character, is kept until it is settled.
        """
        end = len(self._text) if self.reason else len(self._text) - self._unsettled()
        text, self._taken = self._text[self._taken : end], max(self._taken, end)
        logprobs, self._logprobs = self._logprobs, _no_logprobs()
        if not (text or self.reason or logprobs["tokens"]):
            return None
        is_asked = self._alternatives is not None
        return {
            "text": text,
            "logprobs": logprobs if is_asked else None,
            "finish_reason": self.reason,
        }

    def _note(self, token: Token, alternatives: int) -> None:
        """Notes the log-probability of the next token, and those of the likeliest in its place."""
        text, noted = self._text, self._logprobs
        named = {
            id: self._texts.added(self._ids, text, id) for id, _ in ((token.id, 0), *token.top)
        }
        noted["tokens"].append(named[token.id])
        noted["token_logprobs"].append(token.logprob)
        noted["text_offset"].append(len(text))
        likeliest = {named[id]: logprob for id, logprob in token.top[:alternatives]}
        # As OpenAI's, which adds the token that was taken.
        whole = {**likeliest, named[token.id]: token.logprob} if alternatives else None
        noted["top_logprobs"].append(whole)

    def _unsettled(self) -> int:
        """Characters at the end that may yet change or go."""
        begun = (
            length
            for stop in self._stops
            for length in range(1, len(stop))
            if self._text.endswith(stop[:length])
        )
        halves = len(self._text) - len(self._text.rstrip(_HALF))
        return max([halves, *begun])


def _no_logprobs() -> dict[str, list[Any]]:
    """OpenAI's `logprobs` of no token."""
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
