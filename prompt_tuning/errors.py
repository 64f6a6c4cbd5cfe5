"""Errors that say what is wrong, what was expected, and the one thing to do about it."""

import difflib
import errno
import os
import re
from collections.abc import Iterable

# What the system says -> what to do about it.
_REMEDIES = {
    errno.ENOSPC: "free some room there, or write elsewhere; the same command then goes on",
    errno.EDQUOT: "free some of your quota there, or write elsewhere; the same command then goes on",
    errno.EIO: "check the disk or the connection to it (`dmesg`), then run the same command again",
    errno.ESTALE: "mount the file system again, then run the same command again",
    errno.EROFS: "name a folder on a file system that can be written",
    errno.EACCES: "grant this user access to it, or name another path",
    errno.EPERM: "grant this user access to it, or name another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOTDIR: "name a folder: a part of the path is a file",
    errno.EISDIR: "name a file: this is a folder",
    errno.EEXIST: "name a folder, or remove the file that has its name",
    errno.ENOTEMPTY: "remove what is there, or choose another name",
    errno.ENOENT: "put it back if it was removed meanwhile, or correct the path",
    errno.ENXIO: "name a file: nothing can be read from this",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.EFBIG: "write to a file system that holds files of this size",
    errno.ELOOP: "name the file itself: its links lead in a circle",
}


def closest_matches(name: str, candidates: Iterable[str]) -> list[str]:
    """Returns up to three of `candidates` that look most like `name`, best first."""
    # difflib is case-sensitive; a name typed in the wrong case is still the same name.
    folded = {candidate.lower(): candidate for candidate in sorted(set(candidates))}
    return [folded[m] for m in difflib.get_close_matches(name.lower(), folded)]


class PromptTuningError(Exception):
    """An error a user can act on.

    The text is always `<what>: got <got>, expected <expected>. Fix: <fix>.`, followed by the closest matches when a
    name was looked up.

    Args:
      what: What is wrong, without a trailing colon.
      got: The offending value (its `repr` is shown; a `str` that should be shown bare is wrapped by the caller).
      expected: What is allowed.
      fix: One action, imperative, without a trailing full stop.
      name: The name that was looked up, if any.
      candidates: Names that exist, searched for the closest matches of `name`.
    """

    def __init__(
        self,
        what: str,
        *,
        got: object,
        expected: str,
        fix: str,
        name: str | None = None,
        candidates: Iterable[str] = (),
    ):
        text = f"{what}: got {got!r}, expected {expected}. Fix: {fix}."
        matches = closest_matches(name, candidates) if name is not None else []
        if matches:
            text += f" Closest matches: {', '.join(matches)}."
        super().__init__(text)


class ConfigError(PromptTuningError, ValueError):
    """A setting (gin binding, flag or argument) is wrong."""


class DataError(PromptTuningError, ValueError):
    """A task, an input file or an example is wrong."""


class CheckpointError(PromptTuningError, ValueError):
    """A checkpoint or prompt file is missing, damaged or of another model."""


def unreadable(what: object, cause: object, *, expected: str, fix: str) -> CheckpointError:
    """Returns the error for something stored that cannot be read.

    Args:
      what: What it is, after "Cannot read".
      cause: What was raised, or what is wrong in words; its first line is shown.
      expected: What it should be.
      fix: One action.
    """
    text = f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else str(cause)
    first = text.strip().splitlines()[0][:300]
    return CheckpointError(f"Cannot read {what}", got=first, expected=expected, fix=fix)


class MachineError(PromptTuningError, OSError):
    """The machine cannot read or write a file: no room, no right, no such folder, a broken disk."""


def from_machine(error: BaseException) -> MachineError | None:
    """Returns what a system's error means for a user, or None if it is another kind of error.

    Args:
      error: What was raised; what it was raised from is looked at too, since libraries wrap it. TensorFlow's and
        TensorStore's errors have the system's words in their text.
    """
    cause: BaseException | None = error
    while cause is not None:
        text = f"{type(cause).__name__}: {cause}"
        stated = re.search(r"\bOS error (\d+)|\[Errno (\d+)\]", text)
        number = getattr(cause, "errno", None)
        if number is None and stated:
            number = int(stated[1] or stated[2])
        if number is None:
            number = next((n for n in _REMEDIES if os.strerror(n) in text), None)
        # A file that is missing and has no name is none that a user could put back: that is a mistake of a program's.
        is_named = re.search(r"(?:/|gs://)\S", str(cause)) or getattr(cause, "filename", None)
        if number in _REMEDIES and (number != errno.ENOENT or is_named):
            # The path of the second half of a renaming is where the trouble is.
            path = getattr(cause, "filename2", None) or getattr(cause, "filename", None)
            named = re.search(r"(?:/|gs://)[^\s'\"\];:,]+", str(cause))
            where = path if path is not None else named[0] if named else "a file"
            return MachineError(
                os.strerror(number),
                got=str(where),
                expected="a path that can be read or written as asked",
                fix=_REMEDIES[number],
            )
        cause = cause.__cause__
    return None


class NonFiniteError(PromptTuningError, ArithmeticError):
    """A loss or gradient became NaN or infinite."""


def check_count(
    name: str, value: object, unit: str, *, at_least: int = 1, none_means: str | None = None
) -> None:
    """Raises ConfigError unless a setting is a whole number.

    Args:
      name: The setting, as gin binds it, or the flag.
      value: Its value.
      unit: What it counts, in the plural.
      at_least: The smallest number allowed.
      none_means: What None stands for, where it is allowed.
    """
    if value is None and none_means is not None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(
            f"{name} is not a number of {unit}",
            got=value,
            expected=f"a whole number of {unit} >= {at_least}"
            + (f", or None for {none_means}" if none_means else ""),
            fix=f"set {name} to such a number",
        )


def check_choice(
    name: str, value: object, allowed: Iterable[str], *, fix: str | None = None
) -> None:
    """Raises ConfigError unless a setting is one of a few texts.

    Args:
      name: The setting, as gin binds it, or the flag.
      value: Its value.
      allowed: The texts.
      fix: One action; None says to set the setting to one of them.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ConfigError(
            f"{name} is unknown",
            got=value,
            expected=f"one of {', '.join(map(repr, allowed))}",
            fix=fix or f"set {name} to one of them",
            name=str(value),
            candidates=allowed,
        )


def check_number(name: str, value: object, interval: str, *, none_means: str | None = None) -> None:
    """Raises ConfigError unless a setting is a number in an interval.

    Args:
      name: The setting, as gin binds it.
      value: Its value.
      interval: The numbers allowed, as "[0, 1)" or "(0, inf)".
      none_means: What None stands for, where it is allowed.
    """
    if value is None and none_means is not None:
        return
    low, high = map(float, interval[1:-1].split(","))
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_above = low < value or (low == value and interval[0] == "[")
        is_below = value < high or (value == high and interval[-1] == "]")
        if is_above and is_below:
            return
    raise ConfigError(
        f"{name} is out of range",
        got=value,
        expected=f"a number in {interval}" + (f", or None for {none_means}" if none_means else ""),
        fix=f"bind {name} to such a number",
    )


def texts_of(name: str, value: object) -> tuple[str, ...]:
    """Returns a setting that is a list of texts, or one alone, as a tuple.

    Args:
      name: The setting, as gin binds it.
      value: Its value.

    Raises:
      ConfigError: If it is neither.
    """
    texts = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"{name} is no list of texts",
            got=value,
            expected="a list of texts",
            fix=f"bind {name} to such a list, or leave it out",
        )
    return texts  # pyright: ignore[reportReturnType]
