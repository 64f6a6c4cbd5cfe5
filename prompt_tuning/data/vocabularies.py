"""The vocabulary that registered tasks name: the one of the run, whichever that is."""

import functools
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import sentencepiece
import seqio
from etils import epath

from prompt_tuning import ladder
from prompt_tuning.data import content, context, file_kinds
from prompt_tuning.errors import DataError, check_count

# This model file already holds T5's 100 sentinels as pieces: 32,100 ids with `extra_ids=0`, as T5X's gin files load it.
T5_VOCABULARY = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"
# The file of 32,000 pieces that is in circulation as `spiece.model` needs the sentinels added.
T5_EXTRA_IDS = 100
# T5's padding and end; batches are padded with 0 whatever the model's padding is (`models/special_ids.py`).
PAD_ID, EOS_ID = 0, 1
_WEB = ("https://", "http://")
_TIMEOUT_SECS = 60


class SentencePieceVocabulary(seqio.SentencePieceVocabulary):
    """SeqIO's vocabulary, whose model file may also be on the web.

    Such a file is downloaded when it is first needed, once for this machine: it is kept in `~/.cache/prompt_tuning`
    (or below `XDG_CACHE_HOME`).

    Args:
      sentencepiece_model_file: A path, `gs://…` or `https://…`.
      extra_ids: Sentinels `<extra_id_0>`, … added behind the pieces.
      reverse_extra_ids: Whether `<extra_id_0>` is the last id, as in T5.
      use_fast_tokenizer: Whether TensorFlow Text's faster tokenizer encodes inside datasets.
    """

    def __init__(
        self,
        sentencepiece_model_file: str,
        extra_ids: int = 0,
        reverse_extra_ids: bool = True,
        use_fast_tokenizer: bool = False,
    ):
        check_count("the vocabulary's extra_ids", extra_ids, "sentinels", at_least=0)
        # Only where there is one: vocabularies of the same file are equal, whichever class they are of.
        if sentencepiece_model_file.startswith(_WEB):
            self._web_address = sentencepiece_model_file
        super().__init__(
            cached_path(sentencepiece_model_file),
            extra_ids,
            reverse_extra_ids=reverse_extra_ids,
            use_fast_tokenizer=use_fast_tokenizer,
        )

    @property
    def address(self) -> str:
        """Where the model file was said to be."""
        return getattr(self, "_web_address", self.sentencepiece_model_file)

    @property
    def tf_tokenizer(self) -> Any:
        """TensorFlow's tokenizer, one for all pipelines: each takes megabytes, and a tenth of a second to make."""
        return _tf_tokenizer(self.sp_model, self._use_fast_tokenizer)

    def _model_context(self) -> Any:
        if self._model is None and self.address.startswith(_WEB):
            download(self.address)
        return super()._model_context()


@functools.lru_cache(maxsize=8)
def _tf_tokenizer(model: bytes, is_fast: bool) -> Any:
    """The tokenizer of a SentencePiece model, outside of whatever graph is being made."""
    # It takes seconds to import, and only pipelines need it.
    import tensorflow as tf
    import tensorflow_text as tf_text

    make = tf_text.FastSentencepieceTokenizer if is_fast else tf_text.SentencepieceTokenizer
    with tf.init_scope():
        return make(model=model)


def sentencepiece_vocabulary(
    path: str, extra_ids: int = T5_EXTRA_IDS
) -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary of a SentencePiece model of T5 without sentinel pieces (`spiece.model`).

    Args:
      path: The model file: a path, `gs://…` or `https://…`.
      extra_ids: Sentinels `<extra_id_0>`, … added behind the pieces.
    """
    return SentencePieceVocabulary(path, extra_ids=extra_ids)


def cached_path(address: str) -> str:
    """Returns where the file of a web address is kept on this machine, or a shipped one is; others as they are.

    Args:
      address: A path, `gs://…` or `https://…`.
    """
    if not address.startswith(_WEB):
        return ladder.locate(address)
    cache = epath.Path(os.environ.get("XDG_CACHE_HOME") or epath.Path("~/.cache").expanduser())
    name = urllib.parse.urlparse(address).path.rpartition("/")[2] or "sentencepiece.model"
    # Addresses that differ elsewhere than in the file's name must not share a file.
    folder = content.of_bytes(address)[:16]
    return str(cache / "prompt_tuning" / "vocabularies" / folder / name)


def download(address: str) -> None:
    """Downloads a SentencePiece model to `cached_path`, unless it is there.

    Args:
      address: `https://…`.

    Raises:
      DataError: It cannot be had, or is no SentencePiece model.
    """
    path = epath.Path(cached_path(address))
    if path.is_file():
        return
    fix = "correct the address, or download the file yourself and name its path"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECS) as response:
            content = response.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(
            f"The vocabulary cannot be downloaded ({type(error).__name__}: {error})",
            got=address,
            expected="an address that this machine can reach",
            fix=fix,
        ) from error
    try:
        sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(content)
    # SentencePiece says RuntimeError, and its messages change.
    except Exception as error:
        raise DataError(
            f"The downloaded file is no SentencePiece model ({error})",
            got=address,
            expected="the address of the model file itself, not of a page about it",
            fix=fix,
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed, so that another process never reads half a file.
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


@functools.cache
def _t5_vocabulary() -> seqio.Vocabulary:
    return SentencePieceVocabulary(T5_VOCABULARY)


def _of_run(name: str, doc: str) -> Any:
    """Returns a property that asks the run's vocabulary."""
    return property(lambda self: getattr(self.resolve(), name), doc=doc)


def _by_run(name: str, doc: str = "") -> Any:
    """Returns a method that has the run's vocabulary answer."""

    def method(self: "RunVocabulary", value: Any) -> Any:
        return getattr(self.resolve(), name)(value)

    method.__doc__ = doc
    return method


class RunVocabulary(seqio.Vocabulary):
    """Stands for the run's vocabulary (see `context`), or T5's own where the run names none.

    Nothing is read before the first question about ids, so that tasks register without a vocabulary file. All
    instances are equal: they always mean the same vocabulary.
    """

    def __init__(self) -> None:
        super().__init__()

    def resolve(self) -> seqio.Vocabulary:
        """Returns the vocabulary that is meant now."""
        vocabulary = context.get_vocabulary()
        if vocabulary is None or isinstance(vocabulary, RunVocabulary):
            return _t5_vocabulary()
        return vocabulary

    bos_id = _of_run("bos_id", "Id that begins a sequence; T5 has none (-1).")
    eos_id = _of_run("eos_id", "Id that ends a sequence.")
    pad_id = _of_run("pad_id", "Id of padding.")
    unk_id = _of_run("unk_id", "Id of what the vocabulary cannot write.")
    extra_ids = _of_run("extra_ids", "Number of sentinels added behind the pieces.")
    vocab_size = _of_run("vocab_size", "Number of ids, sentinels included.")
    _base_vocab_size = _of_run("_base_vocab_size", "Number of ids without sentinels.")
    # The public methods are delegated whole: each vocabulary does its own clean-up around the private ones.
    encode = _by_run("encode", "Returns the ids of a text, without EOS.")
    decode = _by_run("decode", "Returns the text of ids, up to the first EOS.")
    encode_tf = _by_run("encode_tf", "Returns the ids of a string tensor, int32, without EOS.")
    decode_tf = _by_run("decode_tf", "Returns the strings of int32 ids, up to the first EOS.")
    _encode = _by_run("_encode")
    _decode = _by_run("_decode")
    _encode_tf = _by_run("_encode_tf")
    _decode_tf = _by_run("_decode_tf")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RunVocabulary):
            return True
        return self.resolve() == other

    def __hash__(self) -> int:
        return hash(RunVocabulary)

    def __repr__(self) -> str:
        return "RunVocabulary()"

    def __str__(self) -> str:
        return f"RunVocabulary({self.resolve()})"


def resolved(vocabulary: seqio.Vocabulary) -> seqio.Vocabulary:
    """Returns a vocabulary; of the run's, the one that it stands for now."""
    return vocabulary.resolve() if isinstance(vocabulary, RunVocabulary) else vocabulary


def end_of(vocabulary: seqio.Vocabulary) -> int:
    """Returns the id that ends a sequence: T5's for a vocabulary of bare ids, which has none."""
    return EOS_ID if vocabulary.eos_id is None else vocabulary.eos_id


def check_vocabulary(vocabulary: seqio.Vocabulary, *, pad: int = PAD_ID, eos: int = EOS_ID) -> None:
    """Loads a vocabulary once, so that a wrong path is reported before anything is compiled.

    Args:
      vocabulary: Any SeqIO vocabulary.
      pad: The model's id of padding.
      eos: The model's id of the end.

    Raises:
      DataError: The model file is missing, or not a SentencePiece model, or its padding or end has another id than the
        model: padding would be read as text, and no answer would ever end.
    """
    meant = resolved(vocabulary)
    path = getattr(meant, "address", getattr(meant, "sentencepiece_model_file", None))
    fix = "set the vocabulary's `sentencepiece_model_file` to a SentencePiece model that this machine can read"
    # A look at the local disk first: TensorFlow's own message for a missing file names no setting.
    if path is not None and "://" not in str(path) and not content.is_file(path):
        raise DataError(
            "The vocabulary file does not exist", got=str(path), expected="a file", fix=fix
        )
    try:
        size, eos_id, pad_id = meant.vocab_size, meant.eos_id, meant.pad_id
        if isinstance(meant, seqio.SentencePieceVocabulary):
            # SeqIO says 0 whatever the file says.
            pad_id = meant.tokenizer.pad_id()
    except DataError:
        raise
    # SentencePiece, TensorFlow and cloud storage each raise errors of their own.
    except Exception as error:
        cause, fix = file_kinds.stand_in(path or "") or (f"{type(error).__name__}: {error}", fix)
        raise DataError(
            f"The vocabulary file cannot be loaded ({cause})",
            got=str(path or meant),
            expected="a readable SentencePiece model",
            fix=fix,
        ) from error
    if size < 1 or eos_id is None or eos_id < 0:
        raise DataError(
            "The vocabulary has no end-of-sequence id",
            got=str(path or meant),
            expected="a vocabulary whose sequences end in </s> (T5: id 1)",
            fix=fix,
        )
    # MADLAD-400's padding is a piece that its vocabulary calls something else.
    is_padding = pad_id == pad or (pad_id < 0 and pad != PAD_ID)
    if eos_id != eos or not is_padding:
        raise DataError(
            f"The special ids of the vocabulary {path or meant} are not the model's",
            got=f"pad {pad_id}, EOS {eos_id}",
            expected=f"pad {pad}, EOS {eos}"
            + (", as of every T5" if (pad, eos) == (PAD_ID, EOS_ID) else ""),
            fix="name the vocabulary that the model was trained with, or train this one again with"
            f" --pad_id={pad} --eos_id={eos} --unk_id=2 --bos_id=-1",
        )


def count_tokens(text: str, vocabulary: seqio.Vocabulary) -> int:
    """Returns the length of the prompt that a text fills, for gin.

    Args:
      text: The text.
      vocabulary: The model's.

    Returns:
      Tokens, without EOS.

    Raises:
      DataError: As `check_vocabulary`.
    """
    check_vocabulary(vocabulary)
    return len(vocabulary.encode(text))
