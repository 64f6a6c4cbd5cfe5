"""Completions as OpenAI's own client asks for them, against the texts that `infer` writes for the same rows."""

import pytest
import seqio

TEXTS = [
    "the old mill by the river",
    "a",
    "Is the answer true or false?",
    "a quiet and moving picture",
]


@pytest.fixture(scope="module")
def inferred(served, inputs, tmp_path_factory):
    """What `infer` makes of `TEXTS` with each prompt: (prompt, text) -> prediction."""
    folder = tmp_path_factory.mktemp("infer")
    rows = [{"task": name, "inputs": text} for name in served.prompts for text in TEXTS]
    answers = served.infer(inputs, folder, rows, "predict")
    texts = [answer["prediction"] for answer in answers]
    return {(row["task"], row["inputs"]): text for row, text in zip(rows, texts, strict=True)}


def test_answers_are_those_of_infer(served, inferred):
    for name in served.prompts:
        answer = served.client.completions.create(model=name, prompt=TEXTS)
        assert [choice.text for choice in answer.choices] == [inferred[name, t] for t in TEXTS]
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
        assert answer.model == name and answer.object == "text_completion"
    assert len(set(inferred.values())) > 2


def test_a_stream_is_the_same_answer_in_parts(served, inferred):
    parts = list(
        served.client.completions.create(
            model="boolq", prompt=TEXTS[:2], stream=True, stream_options={"include_usage": True}
        )
    )
    texts = ["", ""]
    for part in parts[:-1]:
        assert part.usage is None
        for choice in part.choices:
            texts[choice.index] += choice.text
    assert texts == [inferred["boolq", text] for text in TEXTS[:2]]
    whole = served.client.completions.create(model="boolq", prompt=TEXTS[:2])
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert len({part.id for part in parts}) == 1


def test_token_ids_are_taken_as_they_are(served, inputs, inferred):
    vocabulary = seqio.SentencePieceVocabulary(str(inputs.vocabulary))
    ids = [[*vocabulary.encode(text), vocabulary.eos_id] for text in TEXTS[:2]]
    for prompt, expected in ((ids[0], TEXTS[:1]), (ids, TEXTS[:2])):
        answer = served.client.completions.create(model="cb", prompt=prompt)
        assert [c.text for c in answer.choices] == [inferred["cb", text] for text in expected]


def test_an_answer_ends_before_a_stop_text(served, inferred):
    whole = inferred["boolq", TEXTS[0]]
    assert len(whole) > 4
    stop = whole[2:4]
    cut = whole[: whole.index(stop)]
    for stream in (False, True):
        answer = served.client.completions.create(
            model="boolq", prompt=TEXTS[0], stop=[stop, "never"], stream=stream
        )
        parts = list(answer) if stream else [answer]
        assert "".join(p.choices[0].text for p in parts) == cut
        assert parts[-1].choices[0].finish_reason == "stop"


def test_log_probabilities_come_with_their_tokens(served, inferred):
    answer = served.client.completions.create(model="boolq", prompt=TEXTS[0], logprobs=3)
    found = answer.choices[0].logprobs
    assert "".join(found.tokens) == answer.choices[0].text == inferred["boolq", TEXTS[0]]
    assert len(found.tokens) == answer.usage.completion_tokens == len(found.top_logprobs)
    for token, logprob, top in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert 1 <= len(top) <= 3 and top[token] == logprob == max(top.values()) <= 0
    assert [answer.choices[0].text[at:][:1] for at in found.text_offset] == [
        token[:1] for token in found.tokens
    ]


def test_draws_follow_from_their_seed(served):
    def draw(**settings):
        answer = served.client.completions.create(
            model="boolq", prompt=TEXTS[:2], temperature=2, n=3, **settings
        )
        assert [choice.index for choice in answer.choices] == list(range(6))
        return [choice.text for choice in answer.choices]

    drawn = draw(seed=3)
    assert drawn == draw(seed=3) and len(set(drawn)) > 3
    assert drawn != draw(seed=4) and draw() != draw()
    # Of the likeliest token alone nothing else is drawn.
    assert len(set(draw(top_p=1e-9)[:3])) == 1


def test_echo_scores_its_suffix_as_score_does(served):
    echoed = served.client.completions.create(
        model="cb", prompt=TEXTS, suffix="true", echo=True, max_tokens=0, logprobs=0
    )
    status, scored, _ = served.ask(
        "/v1/score", {"model": "cb", "prompt": TEXTS, "labels": ["true", "a river"]}
    )
    assert status == 200
    for choice, row in zip(echoed.choices, scored["data"], strict=True):
        assert choice.text == "true" and choice.logprobs.tokens[-1] == "</s>"
        total = sum(choice.logprobs.token_logprobs)
        assert total == pytest.approx(row["scores"][0]["logprob"], abs=1e-4)
    long = {"model": "cb", "prompt": "a", "suffix": "a " * 50, "echo": True, "max_tokens": 0}
    assert served.ask("/v1/completions", long)[1]["error"]["param"] == "suffix"


def test_a_deadline_ends_an_answer(served):
    content = {"model": "cb", "prompt": TEXTS * 6, "timeout": 0.001}
    status, answer, headers = served.ask("/v1/completions", content)
    assert status == 504 and answer["error"]["code"] == "deadline_exceeded"
    assert headers["x-should-retry"] == "false"
    status, answer, _ = served.ask("/v1/completions", {**content, "stream": True})
    # The status of a stream is sent before its first event.
    assert status == 200 and '"deadline_exceeded"' in answer and "[DONE]" not in answer
