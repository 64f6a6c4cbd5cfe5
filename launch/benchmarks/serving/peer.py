"""The other side: PEFT's prompts on transformers' T5 behind the same framework, one `generate` a request.

`python -m prompt_tuning.launch.benchmarks.serving.peer FOLDER PORT`, a folder as `subject.make` writes it. An
adapter is chosen for the whole model (`set_adapter`), so that answers take turns.
"""

import os
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import Any

from prompt_tuning import ladder


def answerer(folder: pathlib.Path) -> Callable[[dict[str, Any]], str]:
    """Returns what answers the body of a request."""
    import peft
    import sentencepiece
    import torch
    import transformers

    from prompt_tuning.launch.benchmarks.serving import subject

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    frozen = transformers.T5ForConditionalGeneration.from_pretrained(folder / subject.WEIGHTS)
    frozen.generation_config.update(decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    first, *others = sorted((folder / subject.ADAPTERS).iterdir())
    model: Any = peft.PeftModel.from_pretrained(frozen, str(first), adapter_name=first.name)
    for adapter in others:
        model.load_adapter(str(adapter), adapter_name=adapter.name)
    model.eval()
    pieces = sentencepiece.SentencePieceProcessor()
    pieces.Load(ladder.locate(subject.VOCABULARY))
    turn = threading.Lock()

    def answer(body: dict[str, Any]) -> str:
        ids = torch.tensor([[*pieces.EncodeAsIds(body["prompt"])[: subject.INPUTS - 1], 1]])
        with turn, torch.inference_mode():
            model.set_adapter(body["model"])
            rows = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=body["max_tokens"],
                do_sample=False,
            )
        # Small has more ids than this vocabulary; what it has no piece for is unknown, as SeqIO has it.
        size, unknown = pieces.vocab_size(), pieces.unk_id()
        return pieces.DecodeIds([i if i < size else unknown for i in rows[0].tolist() if i > 1])

    return answer


def main() -> None:
    """Serves until it is ended."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    folder, port = sys.argv[1:]
    answer = answerer(pathlib.Path(folder))

    async def complete(request: Request) -> Response:
        text = await run_in_threadpool(answer, await request.json())
        return JSONResponse({"choices": [{"index": 0, "text": text}]})

    async def health(request: Request) -> Response:
        return Response()

    routes = [
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/health", health),
    ]
    uvicorn.run(Starlette(routes=routes), port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
