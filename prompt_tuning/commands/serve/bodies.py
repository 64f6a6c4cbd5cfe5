"""What requests may hold, as JSON; a field's `description` is what an error says was expected of it.

`/v1/completions` is OpenAI's legacy completion, https://platform.openai.com/docs/api-reference/completions. Differs:
where none is given, `temperature` is 0 and `max_tokens` the longest answer, as `prompt-tuning infer` decodes; `suffix`
is the target that `echo` with `max_tokens` 0 scores, since an encoder gives its own input no probability; `timeout` is
new.
"""

from typing import Annotated, Any

import pydantic
from pydantic import Field, StringConstraints

from prompt_tuning.commands.serve.engine.requests import MOST_ALTERNATIVES
from prompt_tuning.commands.serve.problems import Refused

MAX_TEXTS = 256
MAX_CHOICES = 16
MAX_LABELS = 256
# Texts times labels of a request.
MAX_SCORES = 4096
MAX_STOPS = 4
# Unit: characters.
MAX_STOP_LENGTH = 64
# Also of a request that names none; the time that OpenAI's clients wait. Unit: seconds.
MAX_TIMEOUT = 600.0
# What the model is called without a prompt of --prompts or of the folder.
BARE = "frozen"
# What may stand in a path, in HTML and in a log without care; of a prompt's name the whole.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAMES_ARE = "1 to 64 of A-Z a-z 0-9 . _ -, a letter or a digit first"
# Of what was sent, an error shows so many characters.
_SHOWN = 80

Name = Annotated[
    str,
    Field(pattern=f"^{NAME}$", description=NAMES_ARE),
]
Model = Annotated[
    str, Field(max_length=256, description="the name of a prompt or of the model (GET /v1/models)")
]
Timeout = Annotated[
    float | None,
    Field(gt=0, le=MAX_TIMEOUT, description=f"seconds, above 0 and up to {MAX_TIMEOUT:g}"),
]
_Id = Annotated[int, Field(ge=0, lt=2**31)]
# A body has room for a million errors, of which one is told.
_Ids = Annotated[list[_Id], Field(min_length=1, fail_fast=True)]
_Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
_Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_LENGTH)]
# What OpenAI's other models do; these values ask for nothing.
_Zero = Annotated[float | None, Field(ge=0, le=0, description="0: it is not supported")]


class Body(pydantic.BaseModel):
    """A request's body; what it does not name is refused."""

    model_config = pydantic.ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    def check(self) -> None:
        """Raises Refused for what each field by itself does not show."""


class StreamOptions(Body):
    """Whether the last event of a stream counts tokens; the other is a setting of OpenAI's that changes no answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Completion(Body):
    """`POST /v1/completions`."""

    model: Model
    prompt: Annotated[
        str
        | _Texts
        | _Ids
        | Annotated[list[_Ids], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)],
        Field(
            description=f"a text, or the token ids of one with its end, or a list of up to {MAX_TEXTS} of either"
        ),
    ]
    max_tokens: Annotated[int | None, Field(ge=0, description="a whole number of tokens >= 0")] = (
        None
    )
    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="a number from 0 (the likeliest tokens) to 2")
    ] = None
    top_p: Annotated[
        float | None, Field(gt=0, le=1, description="a number above 0 and up to 1")
    ] = None
    n: Annotated[
        int | None, Field(ge=1, le=MAX_CHOICES, description=f"1 to {MAX_CHOICES} answers a text")
    ] = None
    stop: Annotated[
        _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOPS)] | None,
        Field(
            description=f"a text of 1 to {MAX_STOP_LENGTH} characters, or up to {MAX_STOPS} of them"
        ),
    ] = None
    seed: Annotated[
        int | None, Field(ge=-(2**63), lt=2**63, description="a whole number of 64 bits")
    ] = None
    logprobs: Annotated[
        int | None,
        Field(
            ge=0, le=MOST_ALTERNATIVES, description=f"0 to {MOST_ALTERNATIVES} tokens a position"
        ),
    ] = None
    echo: Annotated[bool | None, Field(description="true or false")] = None
    suffix: Annotated[
        str | None,
        Field(description="a text to score, with `echo` true and `max_tokens` 0"),
    ] = None
    stream: Annotated[bool | None, Field(description="true or false")] = None
    stream_options: Annotated[
        StreamOptions | None, Field(description='an object such as {"include_usage": true}')
    ] = None
    timeout: Timeout = None
    # Clients send these with every request.
    user: Annotated[str | None, Field(description="a text")] = None
    best_of: Annotated[int | None, Field(ge=1, le=1, description="1: it is not supported")] = None
    presence_penalty: _Zero = None
    frequency_penalty: _Zero = None
    logit_bias: Annotated[
        dict[str, Any] | None, Field(max_length=0, description="{}: it is not supported")
    ] = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def check(self) -> None:
        """Raises Refused for fields that do not go together."""
        is_scored = bool(self.echo) and self.max_tokens == 0
        if not bool(self.echo) == is_scored == (self.suffix is not None):
            raise Refused(
                "`echo` scores a text as the answer: a model with an encoder gives its input no probability",
                got=f"echo {self.echo}, max_tokens {self.max_tokens}, suffix {shown(self.suffix)}",
                expected="`echo` true and `max_tokens` 0 with the text to score in `suffix`, or none of the three",
                fix="send all three, or neither `echo` nor `suffix`; POST /v1/score compares several texts",
                param="echo" if self.suffix is None else "suffix",
            )
        if self.max_tokens == 0 and not is_scored:
            raise Refused(
                "`max_tokens` leaves no room for an answer",
                got=0,
                expected="at least 1, or `echo` true with a `suffix`",
                fix="ask for at least 1 token",
                param="max_tokens",
            )
        extra = [
            name
            for name, is_set in (
                ("stream", self.stream),
                ("n", (self.n or 1) > 1),
                ("stop", self.stops),
            )
            if is_set and is_scored
        ]
        if extra:
            raise Refused(
                f"`{extra[0]}` has no meaning where a text is scored",
                got=getattr(self, extra[0]),
                expected="a request without it",
                fix="leave it out",
                param=extra[0],
            )


class Scoring(Body):
    """`POST /v1/score`: how likely each of some labels is as the answer to each of some texts."""

    model: Model
    prompt: Annotated[
        str | _Texts, Field(description=f"a text, or a list of up to {MAX_TEXTS} texts")
    ]
    labels: Annotated[
        list[str],
        Field(
            min_length=1, max_length=MAX_LABELS, description=f"a list of up to {MAX_LABELS} texts"
        ),
    ]
    timeout: Timeout = None

    def check(self) -> None:
        """Raises Refused if a label is named twice, as their probabilities would not add up, or for too many scores."""
        twice = next((x for i, x in enumerate(self.labels) if x in self.labels[:i]), None)
        if twice is not None:
            raise Refused(
                "`labels` names a label twice",
                got=twice,
                expected="each label once",
                fix="leave one out",
                param="labels",
            )
        num_texts = 1 if isinstance(self.prompt, str) else len(self.prompt)
        if num_texts * len(self.labels) > MAX_SCORES:
            raise Refused(
                "The request asks for too many scores at once",
                got=f"{num_texts} texts x {len(self.labels)} labels",
                expected=f"at most {MAX_SCORES} scores",
                fix="send fewer texts in one request",
                param="prompt",
            )


class Loading(Body):
    """`POST /v1/load_prompt`."""

    prompt_name: Name
    prompt_path: Annotated[
        str, Field(min_length=1, max_length=4096, description="a path below the prompts' folder")
    ]

    def check(self) -> None:
        """Raises Refused for the name of the bare model."""
        if self.prompt_name == BARE:
            raise Refused(
                "`prompt_name` is what the model without a prompt is called",
                got=BARE,
                expected="another name",
                fix="choose another",
                param="prompt_name",
            )


class Unloading(Body):
    """`POST /v1/unload_prompt`."""

    prompt_name: Name


def read(kind: type[Body], content: bytes) -> Any:
    """Returns a body as an object of its kind.

    Args:
      kind: The kind.
      content: JSON in UTF-8.

    Raises:
      Refused: With status 400 and the field, for the first thing that is wrong.
    """
    try:
        body = kind.model_validate_json(content)
    except pydantic.ValidationError as errors:
        raise _refusal(kind, errors.errors(include_url=False)[0]) from None
    body.check()
    return body


def shown(value: Any) -> str:
    """Returns what an error shows of a value that was sent."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class Shown(str):
    """A text that errors show as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _refusal(kind: type[Body], error: Any) -> Refused:
    """The error for the first thing that pydantic says is wrong."""
    if not error["loc"]:
        return Refused(
            "The body is no JSON object",
            got=Shown(error.get("ctx", {}).get("error") or shown(error["input"])),
            expected="a JSON object in UTF-8",
            fix="correct the body",
        )
    name = str(error["loc"][0])
    if name not in kind.model_fields:
        return Refused(
            "The request has a field that there is not",
            got=Shown(shown(name)),
            expected=f"some of {', '.join(kind.model_fields)}",
            fix="leave it out, or correct its name",
            param=name[:_SHOWN],
            name=name[:_SHOWN],
            candidates=kind.model_fields,
        )
    if error["type"] == "missing":
        return Refused(
            f"`{name}` is missing",
            got="no such field",
            expected=kind.model_fields[name].description or "a value",
            fix=f"add `{name}`",
            param=name,
        )
    return Refused(
        f"`{name}` has a value that it cannot have",
        got=Shown(shown(error["input"])),
        expected=kind.model_fields[name].description or "another",
        fix=f"correct `{name}`",
        param=name,
    )
