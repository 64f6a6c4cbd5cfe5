"""Original files whose records hold several examples, read into the columns that TensorFlow Datasets has."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from prompt_tuning.data import local_files
from prompt_tuning.data.columns import Columns
from prompt_tuning.data.local_files import Stems, text_of, to_label
from prompt_tuning.errors import DataError

Record = Mapping[str, Any]
_NO_YES = ("False", "True")


@dataclasses.dataclass(frozen=True)
class NestedFormat:
    """How a data set lies on disk of which a record is more, or other, than one example.

    Attributes:
      folder: Folder below `data_dir`, for example `MultiRC`.
      suffix: `.jsonl`, `.jsonl.gz`, `.json` (one object) or `.txt` (see `definite_pronouns`).
      examples: Yields the examples of a record; its second argument is `file:line`, for errors.
      stems: File names without suffix, where they are not `local_files.SPLIT_STEMS`.
    """

    folder: str
    suffix: str
    examples: Callable[[Record, str], Iterator[dict[str, Any]]]
    stems: Stems = ()

    def read(self, path: epath.Path) -> Columns:
        """Reads a file.

        Args:
          path: A file of the format's suffix.

        Returns:
          The columns that `examples` yields.

        Raises:
          DataError: A line is malformed (named by file and line), or there is no example.
        """
        rows: list[dict[str, Any]] = []
        for where, record in _records(path):
            try:
                rows.extend(self.examples(record, where))
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise DataError(
                    f"{where} lacks a part or has one of the wrong kind"
                    f" ({type(error).__name__}: {error})",
                    got=local_files.shorten(str(record)),
                    expected=f"a record of the original {self.folder} files",
                    fix="correct the line",
                ) from error
        return local_files.to_columns(rows, path)


def _records(path: epath.Path) -> Iterator[tuple[str, Record]]:
    """Yields (`file:line`, record); a text file is one record of its lines."""
    name = path.name
    if name.endswith(".txt"):
        yield str(path), {"lines": [line for _, line in local_files.read_lines(path)]}
    elif name.endswith(".json"):
        try:
            yield str(path), json.loads(path.read_bytes().decode("utf-8-sig"))
        except ValueError as error:
            raise DataError(
                f"{path} is not JSON ({error})",
                got=path.name,
                expected="one JSON object in UTF-8",
                fix="correct the file",
            ) from error
    else:
        for number, line in local_files.read_lines(path):
            if line.strip():
                where = f"{path}:{number}"
                yield where, local_files.parse_json_object(line, where=where)


def multirc(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields an example for every answer to every question about a passage (MultiRC)."""
    passage = record["passage"]
    paragraph = text_of(passage, "text", where=where)
    for question in passage["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": paragraph,
                "question": text_of(question, "question", where=where),
                "answer": text_of(answer, "text", where=where),
                "label": to_label(answer.get("label"), _NO_YES, where=where),
                "idx": {
                    "paragraph": int(record["idx"]),
                    "question": int(question["idx"]),
                    "answer": int(answer["idx"]),
                },
            }


def record_queries(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields an example for every query about a passage; entities and answers are sorted and unique (ReCoRD)."""
    passage = record["passage"]
    text = text_of(passage, "text", where=where)
    entities = {text[entity["start"] : entity["end"] + 1] for entity in passage["entities"]}
    for query in record["qas"]:
        yield {
            "passage": text,
            "query": text_of(query, "query", where=where),
            "entities": sorted(entities),
            "answers": sorted({answer["text"] for answer in query.get("answers", ())}),
            "idx": {"passage": int(record["idx"]), "query": int(query["idx"])},
        }


def pronoun_spans(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields the example of a record, its spans mended as in TensorFlow Datasets' `wsc.fixed` (WSC)."""
    text, target = text_of(record, "text", where=where), record["target"]
    row: dict[str, Any] = {"text": text}
    for span in ("span1", "span2"):
        index = int(target[f"{span}_index"])
        row[f"{span}_text"] = _mended(text, text_of(target, f"{span}_text", where=where), index)
        row[f"{span}_index"] = index
    row["label"] = to_label(record.get("label"), _NO_YES, where=where)
    row["idx"] = int(record["idx"])
    yield row


def _mended(text: str, span: str, index: int) -> str:
    """Returns a span as it is written in the text, where only case, a period or a line break differ."""
    if span in text:
        return span
    starts_small = text.split()[index][0].islower()
    first = span[0].lower() if starts_small else span[0].upper()
    mended = (first + span[1:]).rstrip(".").replace("\n", " ")
    # Some subjects have other words in between; nothing can be done about those.
    return mended if mended in text else span


def definite_pronouns(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a text file: sentence, pronoun, `candidate,candidate`, answer, blank line (DPR)."""
    lines = record["lines"]
    for start in range(0, len(lines) - 3, 5):
        sentence, pronoun, names, answer = (line.strip() for line in lines[start : start + 4])
        if not sentence:
            return
        candidates = [name.strip() for name in names.split(",")]
        if answer not in candidates:
            raise DataError(
                f"{where}:{start + 4} is none of the candidates",
                got=answer,
                expected=f"one of {', '.join(map(repr, candidates))}",
                fix="correct the line",
            )
        yield {
            "sentence": sentence,
            "pronoun": pronoun,
            "candidates": candidates,
            "label": candidates.index(answer),
        }


def squad(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields an example for every question of a file (SQuAD)."""
    for article in record["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {
                    "id": text_of(question, "id", where=where),
                    "title": text_of(article, "title", where=where),
                    "context": text_of(paragraph, "context", where=where),
                    "question": text_of(question, "question", where=where),
                    "answers": {
                        "text": [text_of(a, "text", where=where) for a in question["answers"]]
                    },
                }


def mrqa(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields an example for every question about a context; the header yields none (MRQA)."""
    if "header" in record:
        return
    context = text_of(record, "context", where=where)
    for question in record["qas"]:
        yield {
            "qid": text_of(question, "qid", where=where),
            "context": context,
            "question": text_of(question, "question", where=where),
            "answers": list(question["answers"]),
        }
