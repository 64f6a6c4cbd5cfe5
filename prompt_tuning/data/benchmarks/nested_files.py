"""Original files whose records hold several examples, read into the columns that TensorFlow Datasets has."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from prompt_tuning.data import lines, records
from prompt_tuning.data.benchmarks.local_files import OriginalFormat, text_of, to_index, to_label
from prompt_tuning.data.records import Record
from prompt_tuning.errors import DataError

_NO_YES = ("False", "True")
# What a function of records runs into where one has another structure.
_OTHER_STRUCTURE = (LookupError, TypeError, AttributeError, ValueError, OverflowError)


@dataclasses.dataclass(frozen=True)
class NestedFormat(OriginalFormat):
    """How a data set lies on disk of which a record is more, or other, than one example.

    Its suffix is `.jsonl`, `.jsonl.gz`, `.json` (one object) or `.txt` (see `definite_pronouns`).

    Attributes:
      examples: Yields the examples of a record; its second argument is `file:line`, for errors.
    """

    examples: Callable[[Record, str], Iterator[dict[str, Any]]]

    def rows(self, path: epath.Path) -> Iterable[tuple[str, dict[str, Any]]]:
        """Returns (`file:line`, example) of a file's records."""
        for where, record in _records(path):
            try:
                yield from ((where, row) for row in self.examples(record, where))
            except DataError:
                raise
            except _OTHER_STRUCTURE as error:
                raise DataError(
                    f"{where} lacks a part or has one of the wrong kind"
                    f" ({type(error).__name__}: {error})",
                    got=lines.shorten(ascii(record)),
                    expected=f"a record of the original {self.folder} files",
                    fix="correct the line",
                ) from error


def _records(path: epath.Path) -> Iterable[tuple[str, Record]]:
    """Returns (`file:line`, record); a text file is one record of its lines, and `.json` a single object."""
    kind = records.suffix(path)
    if kind == ".jsonl":
        return records.read_records(path)
    texts = [line for _, line in lines.read_lines(path)]
    if kind == ".txt":
        return [(str(path), {"lines": texts})]
    return [(str(path), lines.parse_json_object("\n".join(texts), where=str(path)))]


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
                    "paragraph": to_index(record["idx"], "idx", where=where),
                    "question": to_index(question["idx"], "idx", where=where),
                    "answer": to_index(answer["idx"], "idx", where=where),
                },
            }


def record_queries(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields an example for every query about a passage; entities and answers are sorted and unique (ReCoRD)."""
    passage = record["passage"]
    text = text_of(passage, "text", where=where)
    entities = {_entity(text, entity, where=where) for entity in passage["entities"]}
    for query in record["qas"]:
        yield {
            "passage": text,
            "query": text_of(query, "query", where=where),
            "entities": sorted(entities),
            "answers": sorted(
                {text_of(answer, "text", where=where) for answer in query.get("answers") or ()}
            ),
            "idx": {
                "passage": to_index(record["idx"], "idx", where=where),
                "query": to_index(query["idx"], "idx", where=where),
            },
        }


def _entity(text: str, entity: Mapping[str, Any], *, where: str) -> str:
    """Returns the part of a text from `start` to `end`, both included."""
    start, end = (to_index(entity[name], name, where=where) for name in ("start", "end"))
    if not start <= end < len(text):
        raise DataError(
            f"{where} has an entity outside its passage",
            got=dict(entity),
            expected=f"start up to end, both below {len(text)}",
            fix="correct the entity's start and end",
        )
    return text[start : end + 1]


def pronoun_spans(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields the example of a record, its spans mended as in TensorFlow Datasets' `wsc.fixed` (WSC)."""
    text, target = text_of(record, "text", where=where), record["target"]
    row: dict[str, Any] = {"text": text}
    for span in ("span1", "span2"):
        index = to_index(target[f"{span}_index"], f"{span}_index", where=where)
        row[f"{span}_text"] = _mended(text, text_of(target, f"{span}_text", where=where), index)
        row[f"{span}_index"] = index
    row["label"] = to_label(record.get("label"), _NO_YES, where=where)
    row["idx"] = to_index(record["idx"], "idx", where=where)
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
    """Yields the examples of a text file: sentence, pronoun, `candidate,candidate`, answer, blank lines (DPR)."""
    for start, block in _blocks(record["lines"]):
        if len(block) != 4:
            raise DataError(
                f"{where}:{start + 1} begins a block of {len(block)} lines",
                got=lines.shorten(block[0]),
                expected="sentence, pronoun, candidates and answer, then a blank line",
                fix="complete the block, or remove it",
            )
        sentence, pronoun, names, answer = block
        candidates = [name.strip() for name in names.split(",")]
        if len(candidates) != 2:
            raise DataError(
                f"{where}:{start + 3} does not hold two candidates",
                got=names,
                expected="candidate,candidate",
                fix="correct the line",
            )
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


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields (position of the first, lines without outer spaces) of every run of lines that are not blank."""
    numbered = enumerate(text.strip() for text in texts)
    for is_text, run in itertools.groupby(numbered, key=lambda item: bool(item[1])):
        if is_text:
            block = list(run)
            yield block[0][0], [text for _, text in block]


def squad(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields an example for every question of a file (SQuAD)."""
    for article_where, article in _listed(record, "data", where, "article"):
        for paragraph_where, paragraph in _listed(
            article, "paragraphs", article_where, "paragraph"
        ):
            for question_where, question in _listed(paragraph, "qas", paragraph_where, "question"):
                name = text_of(question, "id", where=question_where)
                # The file may be a single line, where nothing tells more than this.
                name_where = f"{where}, question {name!r}"
                answers = _listed(question, "answers", name_where, "answer")
                texts = [text_of(answer, "text", where=at) for at, answer in answers]
                yield {
                    "id": name,
                    "title": text_of(article, "title", where=article_where),
                    "context": text_of(paragraph, "context", where=paragraph_where),
                    "question": text_of(question, "question", where=name_where),
                    "answers": {"text": _answers(texts, where=name_where)},
                }


def _listed(record: Record, name: str, where: str, kind: str) -> Iterator[tuple[str, Record]]:
    """Yields (place, object) of a list of objects."""
    values = record.get(name)
    if not isinstance(values, list):
        raise DataError(
            f"{where} has no list {name!r}",
            got=values if name in record else ", ".join(map(repr, record)),
            expected=f"{name!r} as in SQuAD 1.1",
            fix="correct the file, or download it again",
            name=name,
            candidates=list(record),
        )
    for number, value in enumerate(values, start=1):
        at = f"{where}, {kind} {number}"
        if not isinstance(value, dict):
            raise DataError(
                f"{at} is no object",
                got=value,
                expected=f"an object in {name!r}",
                fix="correct the file, or download it again",
            )
        yield at, value


def mrqa(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Yields an example for every question about a context; the header yields none (MRQA)."""
    if "header" in record:
        return
    context = text_of(record, "context", where=where)
    for question in record["qas"]:
        name = text_of(question, "qid", where=where)
        question_where = f"{where}, question {name!r}"
        yield {
            "qid": name,
            "context": context,
            "question": text_of(question, "question", where=question_where),
            "answers": _answers(question["answers"], where=question_where),
        }


def _answers(answers: Any, *, where: str) -> list[str]:
    """Returns the answers of a question; the first of them is the target, so that there must be one."""
    if not isinstance(answers, list) or not answers:
        raise DataError(
            f"{where} has no answer",
            got=answers,
            expected="a list of at least one text in 'answers'",
            fix="add an answer, or remove the question",
        )
    return [lines.check_text(answer, "answers", where=where) for answer in answers]
