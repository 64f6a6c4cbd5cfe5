"""What a short script with PEFT does until its first step is taken: imports, weights, a batch of texts, the step.

`python -m prompt_tuning.launch.benchmarks.speed.peft_start FOLDER`, the folder of a T5 over the ladder's vocabulary.
"""

import os
import random
import sys

import numpy as np

from prompt_tuning import ladder


def main() -> None:
    """Takes one step with the sizes of `configs/ladder/prompt.gin`."""
    import peft
    import sentencepiece
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = transformers.T5ForConditionalGeneration.from_pretrained(sys.argv[1])
    prompt = peft.PromptTuningConfig(
        task_type=peft.TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=20, num_transformer_submodules=1
    )
    model = peft.get_peft_model(model, prompt)
    optimizer = torch.optim.Adafactor([x for x in model.parameters() if x.requires_grad], lr=0.3)
    vocabulary = sentencepiece.SentencePieceProcessor()
    vocabulary.Load(ladder.locate("prompt_tuning/ladder/vocabulary.model"))
    words = "the songs were awful but the concert was not dull".split()
    rows = [vocabulary.EncodeAsIds(" ".join(random.choices(words, k=30))) for _ in range(32)]
    width = max(map(len, rows))
    ids = torch.tensor(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))
    labels = torch.tensor([[*vocabulary.EncodeAsIds("positive"), 1]] * len(rows))
    model(input_ids=ids, attention_mask=(ids > 0).long(), labels=labels).loss.backward()
    optimizer.step()


if __name__ == "__main__":
    main()
