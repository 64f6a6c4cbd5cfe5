"""Output features of text-to-text tasks."""

import seqio

from prompt_tuning.data.vocabularies import RunVocabulary


def text_to_text_features() -> dict[str, seqio.utils.Feature]:
    """Returns T5's two features, tokenized with the run's vocabulary and ended by EOS.

    Returns:
      `inputs` (may be absent, as in T5: a language model has only targets) and `targets`.
    """
    return {
        "inputs": seqio.Feature(vocabulary=RunVocabulary(), add_eos=True, required=False),
        "targets": seqio.Feature(vocabulary=RunVocabulary(), add_eos=True),
    }
