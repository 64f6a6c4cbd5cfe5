"""What is wrong with text that gin cannot read, and what to write instead: a correction is tried before it is named."""

import ast
import re
import tokenize
from collections.abc import Callable, Iterator

from prompt_tuning.errors import ConfigError

# What word processors and web pages write in place of what gin reads.
_QUOTES = dict.fromkeys(map(ord, "‘’‚‛“”„‟«»′″´`"), "'")
_BLANKS = {
    **dict.fromkeys(
        [0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000], " "
    ),
    **dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF], ""),
}
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
_WORDS = {"true": "True", "false": "False", "null": "None", "none": "None", "nil": "None"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_QUOTE_EACH = "quote each text inside:"
_NUMBER = r"[\d_.eE+\-*/() ]+"
# How a file is read: the line of the first fault, None for none.
FirstFault = Callable[[str], int | None]


def error(
    text: str, where: str | None, line: int, reason: str, first_fault: FirstFault
) -> ConfigError:
    """Returns the error for a text that gin cannot read.

    Args:
      text: A whole file, or `NAME = VALUE` of a flag.
      where: Name of the file; None for a flag.
      line: Where gin stopped, from 1.
      reason: What gin says.
      first_fault: Reads a text again.
    """
    lines = text.split("\n")
    line, found = _remedy(lines, min(line, len(lines)), first_fault)
    content = lines[line - 1].strip()
    match = re.fullmatch(r"([\w./]+)\s*=\s*(.*?)\s*(#.*)?", content)
    if found is not None and (where or found[0] != _QUOTE_EACH):
        action, written = found
        shown = written.strip() if where else _as_flag(written)
        fix = f"{action} {shown}"
    elif match is None:
        fix = (
            "write NAME = VALUE, the name without blanks and dashes"
            if where
            else "write --gin.NAME=VALUE"
        )
    elif re.fullmatch(_NUMBER, match[2]):
        fix = f"write the result of {match[2]} as one number"
    elif match[2].startswith(("[", "(", "{")):
        form = f"{match[1]} = ['a', 'b']"
        outside = "" if where else " and the whole outside"
        fix = f"quote each text inside{outside}, like {form if where else _as_flag(form)}"
    else:
        fix = "write a value as expected behind the ="
    at = f"{where}:{line}: " if where else ""
    if match is None:
        return ConfigError(
            f"{at}gin cannot read this line" if where else "gin cannot read a flag",
            got=content,
            expected=f"NAME = VALUE, an import or an include ({reason.splitlines()[0]})",
            fix=fix,
        )
    return ConfigError(
        f"{at}{match[1]} has a value gin cannot read",
        got=match[2],
        expected="a number, True, False, None, a list or dict, %MACRO, @name(), or text in quotes of its own",
        fix=fix,
    )


def not_utf8(content: bytes, where: str, fault: UnicodeDecodeError) -> ConfigError:
    """Returns the error for a file in another encoding.

    Args:
      content: Its bytes.
      where: Its name.
      fault: What decoding said.
    """
    is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    encoding = "UTF-16" if is_utf16 else "WINDOWS-1252"
    line = content.count(b"\n", 0, fault.start) + 1
    return ConfigError(
        f"{where}:{line}: the file is {'UTF-16' if is_utf16 else 'not UTF-8'}",
        got=content[max(fault.start - 20, 0) : fault.start + 20],
        expected="text in UTF-8",
        fix=f"save it as UTF-8, for example: iconv -f {encoding} -t UTF-8 {where} > NEW_FILE",
    )


def joined_texts(text: str) -> tuple[int, str, str] | None:
    """Returns the line and the two texts where a list or dict lacks a comma between texts, which gin would join.

    Args:
      text: A file or flag that gin can read.
    """
    stack: list[str] = []
    previous: tokenize.TokenInfo | None = None
    for token in _tokens(text):
        if token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        _follow(stack, token)
        if previous is not None and previous.type == token.type == tokenize.STRING:
            # A long text that `plan.to_text` has broken is broken behind a blank.
            is_broken = ast.literal_eval(previous.string)[-1:].isspace()
            if stack and stack[-1] in "[{" and not is_broken:
                return token.start[0], previous.string, token.string
        previous = token
    return None


def _remedy(
    lines: list[str], line: int, first_fault: FirstFault
) -> tuple[int, tuple[str, str] | None]:
    """Returns the line to correct and (what to do, the line as it should be): the first that gin then reads on from."""
    # Gin stops behind a comma that is missing, and far behind a bracket or quote that nothing closes.
    first = max(1, min(line - 1, _opened_before(lines) or line))
    for number in dict.fromkeys([line, *range(first, line + 1)]):
        if not lines[number - 1].strip():
            continue
        for action, written in _corrections(
            lines[number - 1], lines[number - 2] if number > 1 else ""
        ):
            if written != lines[number - 1] and _is_mended(
                lines, number, written, line, first_fault
            ):
                return number, (action, written)
    return line, None


def _is_mended(
    lines: list[str], number: int, written: str, line: int, first_fault: FirstFault
) -> bool:
    """Whether gin reads past where it stopped, with one line replaced."""
    changed = [*lines[: number - 1], written, *lines[number:]]
    fault, opened = first_fault("\n".join(changed)), _opened_before(changed)
    # A bracket that is left open would only make gin stop at the end of the file.
    return fault is None or (fault > max(line, number) and (opened is None or opened > number))


def _corrections(line: str, above: str) -> Iterator[tuple[str, str]]:
    """Yields (what to do, the line corrected), the likeliest first; `above` is the line above."""
    include = re.fullmatch(r"\s*include\s+['\"]?([^'\"]+?)['\"]?\s*", line)
    if include:
        yield "write", f"include '{include[1]}'"
    yield "replace the curly quotes by straight ones:", line.translate(_QUOTES)
    yield "replace the no-break space or other odd blank by a plain space:", line.translate(_BLANKS)
    yield "replace the dash by a minus:", line.translate(_DASHES)
    plain = line.translate({**_BLANKS, **_DASHES, **_QUOTES})
    yield "replace the curly quotes and odd blanks by plain ones:", plain
    yield "end the line behind the backslash:", plain.rstrip()
    name, equals, value = plain.partition("=")
    value, comment = _split_comment(value)
    if equals and _BARE.search(value):
        python = _BARE.sub(lambda m: _WORDS.get(m[0].lower(), m[0]), value)
        yield "write", f"{name.rstrip()} = {python}{comment}"
    yield from ((f"a {kind} is missing; write", text) for kind, text in _completed(plain))
    indent = re.match(r"\s*", plain)[0]  # pyright: ignore[reportOptionalSubscript]
    for width in (re.match(r" *", above)[0], "  ", "    ", ""):  # pyright: ignore[reportOptionalSubscript]
        if width != indent:
            alike = f"indent the lines of a block alike, this one by {len(width)} spaces:"
            yield alike, width + plain.strip()
    yield "write", re.sub(r"^\s*--gin\.", "", plain)
    yield "write", re.sub(r"^(\s*[\w./]+)\s*:\s*(\S)", r"\1 = \2", plain)
    yield "write", re.sub(r"^(\s*[\w./]+)\s*[=+:]=", r"\1 =", plain)
    yield "begin a comment with #:", re.sub(r"\s*(//|;)\s*(\S.*)$", r"  # \2", plain)
    yield "end the line behind the value:", re.sub(r"\s*[;,]\s*$", "", plain)
    yield "write", re.sub(r"(?<=\d),(?=\d\d\d\b)", "_", plain)
    yield "write", re.sub(r"(?<=\d),(?=\d)", ".", plain)
    if equals and value and not re.fullmatch(_NUMBER, value):
        yield from _quoted(name.rstrip(), value, comment)
    yield "write", re.sub(r"^(\s*[\w./]+)\s+(?!=)(\S.*)$", r"\1 = \2", plain)


def _quoted(name: str, value: str, comment: str) -> Iterator[tuple[str, str]]:
    """Yields (what to do, `NAME = VALUE`) with quotes around a value, or around the words inside one."""
    if value[0] in "[({":
        yield _QUOTE_EACH, f"{name} = {_BARE.sub(lambda m: repr(m[0]), value)}{comment}"
        if value[0] == "{" and ":" not in value:
            yield "make it a list in [ ]:", f"{name} = [{value[1:-1]}]{comment}"
    elif not re.search(r"['\"]\s*[+%]|^[bfruBFRU]+['\"]|^[@%]", value):
        bare = value.strip("'\"")
        yield "write", f"{name} = {bare!r}{comment}"


# A word that is neither in quotes nor part of a reference, a macro or a number.
_BARE = re.compile(
    r"(?<![\w'\"@%./])[A-Za-z_][\w.-]*(?![\w'\"(])(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)"
)


def _split_comment(value: str) -> tuple[str, str]:
    """The value, and the comment behind it with the blanks before that."""
    match = re.fullmatch(r"\s*(.*?)(\s*#[^'\"]*)?\s*", value)
    assert match is not None, value
    return match[1], match[2] or ""


def _completed(line: str) -> Iterator[tuple[str, str]]:
    """Yields (what is missing, the line with it): commas between values, closing brackets, a quote."""
    with_commas, stack, previous, shift = line, list[str](), None, 0
    for token in _tokens(line.strip()):
        _follow(stack, token)
        ends_value = previous is not None and (
            previous.type in (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)
            or previous.string in (")", "]", "}")
        )
        starts_value = token.type in (tokenize.STRING, tokenize.NUMBER, tokenize.NAME) or (
            token.string in ("(", "[", "{", "@", "%")
        )
        is_called = previous is not None and previous.type == tokenize.NAME and token.string == "("
        if stack and ends_value and starts_value and not is_called and previous is not None:
            at = previous.end[1] + shift + len(line) - len(line.lstrip())
            with_commas = f"{with_commas[:at]},{with_commas[at:]}"
            shift += 1
        previous = token
    yield "comma", with_commas
    for text in (line, with_commas):
        value, comment = _split_comment(text)
        indent = text[: len(text) - len(text.lstrip())]
        bare = value.rstrip(")]} ")
        for kind, part in (
            ("closing bracket", value),
            *(("quote", body + end) for body in (bare, value) for end in "'\""),
            ("closing bracket of the right kind", bare),
        ):
            yield kind, f"{indent}{part}{_closing(part)}{comment}"
        # The line may close brackets that lines above it opened.
        yield from (("closing bracket", f"{indent}{value}{end}{comment}") for end in ")]}")
    yield "comma", line.rstrip() + ","


def _closing(text: str) -> str:
    """What closes the brackets that a text leaves open."""
    stack: list[str] = []
    for token in _tokens(text):
        _follow(stack, token)
    return "".join(_CLOSING[bracket] for bracket in reversed(stack))


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """Yields the tokens of a text, up to where it stops making sense."""
    rows = iter(text.splitlines(keepends=True))
    try:
        yield from tokenize.generate_tokens(lambda: next(rows, ""))
    except (tokenize.TokenError, SyntaxError):
        return


def _follow(stack: list[str], token: tokenize.TokenInfo) -> None:
    """Keeps the brackets that are open behind a token."""
    if token.type == tokenize.OP and token.string in _CLOSING:
        stack.append(token.string)
    elif token.type == tokenize.OP and stack and token.string == _CLOSING[stack[-1]]:
        stack.pop()


def _opened_before(lines: list[str]) -> int | None:
    """The line of the last bracket at the outermost level that nothing closes, None if there is none."""
    stack: list[str] = []
    opened = None
    for token in _tokens("\n".join(lines)):
        was_closed = not stack
        _follow(stack, token)
        if was_closed and stack:
            opened = token.start[0]
    return opened if stack else None


def _as_flag(text: str) -> str:
    """A binding as a flag, whose outer quotes a shell takes away."""
    name, _, value = text.partition("=")
    quoted = value.strip().replace('"', '\\"')
    return f'--gin.{name.strip()}="{quoted}"'
