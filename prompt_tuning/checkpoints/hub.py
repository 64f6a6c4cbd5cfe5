"""Prompts and methods on the Hugging Face hub: `hf://owner/name[@revision]` wherever a file of one may stand.

What such a name means is asked once in a process, so that all of a run sees one commit; the files lie in the cache of
huggingface_hub. Where the hub cannot be reached, what that holds already is used.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from prompt_tuning.checkpoints.method_files.method_set import METHOD_FILE
from prompt_tuning.errors import CheckpointError, ConfigError, PromptTuningError
from prompt_tuning.params.names import PROMPT_PATH

PREFIX = "hf://"
CARD, RECIPE = "README.md", "config.gin"
# What a save of a run consists of.
_PROMPT = PROMPT_PATH.replace("/", ".")
OWN_FILES = (_PROMPT, f"{_PROMPT}.json", METHOD_FILE)
# All that is pushed, and downloaded: beside an adapter there may be a whole model.
FILES = (
    *OWN_FILES,
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
    *(CARD, RECIPE),
)
_SIGN_IN = "run `hf auth login`, or set HF_TOKEN"


def is_name(path: epath.PathLike) -> bool:
    """Returns whether `path` names something on the hub."""
    return os.fspath(path).startswith(PREFIX)


def local(path: epath.PathLike) -> epath.Path:
    """Returns where a file or folder is: what the hub has as it was downloaded, anything else as it is.

    Args:
      path: `hf://owner/name[@revision]`, or any other path.

    Raises:
      ConfigError: If it is no such name, or huggingface_hub is not installed.
      CheckpointError: If there is no such repository or revision, it may not be read, the hub cannot be reached, or no
        prompt and no method is in it.
    """
    return _download(os.fspath(path))[0] if is_name(path) else epath.Path(path)


def pinned(path: epath.PathLike) -> str:
    """Returns the name of something on the hub with the commit that was downloaded; any other path as it is."""
    text = os.fspath(path)
    return _download(text)[1] if is_name(text) else text


@functools.cache
def _download(name: str) -> tuple[epath.Path, str]:
    """The folder with the files of a repository, and its name with the commit."""
    parsed = parse(name)
    with errors_of(parsed.id):
        folder = library().snapshot_download(
            parsed.id, revision=parsed.revision, allow_patterns=[*FILES]
        )
    found = epath.Path(folder)
    # By its files alone is a commit of the cache told from one that has nothing to download; others may have put more
    # of it there.
    names = [file.name for file in found.iterdir()] if found.is_dir() else []
    if not {*names} & ({*FILES} - {CARD, RECIPE}):
        raise CheckpointError(
            f"{name} holds no prompt and no method",
            got=sorted(names),
            expected=f"one of {', '.join(FILES[:-2])}",
            fix="name a repository that `prompt-tuning push` or PEFT wrote",
        )
    return found, f"{PREFIX}{parsed.id}@{found.name}"


def parse(name: str) -> Any:
    """Returns the `id` and the `revision` of a model's repository that `hf://owner/name[@revision]` names.

    Raises:
      ConfigError: If it is no such name, or huggingface_hub is not installed.
    """
    utils = library().utils
    try:
        parsed = utils.parse_hf_uri(name)
        utils.validate_repo_id(parsed.id)
        if parsed.type == "model" and not parsed.path_in_repo:
            return parsed
    except ValueError:
        pass
    raise ConfigError(
        "The name of a repository on the hub is not of its form",
        got=name,
        expected="hf://owner/name or hf://owner/name@revision",
        fix="write the owner and the name of a model's repository",
    )


def library() -> Any:
    """Returns huggingface_hub; ConfigError if it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise ConfigError(
            "The Hugging Face hub is spoken to by huggingface_hub",
            got=f"{error}",
            expected="the extra [hub]",
            fix="run pip install 'prompt-tuning[hub]'",
        ) from error
    return huggingface_hub


def check_token() -> None:
    """Raises ConfigError if there is no token to write with."""
    if library().get_token() is None:
        raise ConfigError(
            "There is no token for the Hugging Face hub",
            got="no HF_TOKEN, and nobody signed in",
            expected="a token that may write",
            fix=_SIGN_IN,
        )


@contextlib.contextmanager
def errors_of(repo: str) -> Iterator[None]:
    """Turns what the hub refuses inside the block into errors that say what to do."""
    errors = library().errors
    try:
        yield
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise _explained(repo, error) from error


def _explained(repo: str, error: Exception) -> PromptTuningError:
    """What an error of huggingface_hub means."""
    hub = library()
    errors, status = hub.errors, getattr(getattr(error, "response", None), "status_code", None)
    got = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        what, expected = f"{repo} is gated", "a repository that this user may read"
        fix = f"ask for access on {hub.constants.ENDPOINT}/{repo}, then {_SIGN_IN}"
    elif isinstance(error, errors.RepositoryNotFoundError):
        what = f"There is no repository {repo} on the hub, or this user may not see it"
        expected = "a repository that is public, or one of this user's"
        fix = f"correct the name, or {_SIGN_IN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, expected = f"{repo} has no such revision", "a branch, a tag or a commit of it"
        fix = f"choose one of those on {hub.constants.ENDPOINT}/{repo}"
    elif status in (401, 403):
        what, expected = f"The token may not do this with {repo}", "a token that may write there"
        fix = f"make one on {hub.constants.ENDPOINT}/settings/tokens, then {_SIGN_IN}"
    elif status is not None:
        what, expected = f"The hub refuses {repo}", "what it takes"
        fix = "try again later, or do what it says"
    else:
        what, expected = f"The hub cannot be reached for {repo}", "a connection, or a copy of it"
        fix = (
            "check the network and HF_HUB_OFFLINE, or name a folder that `prompt-tuning pull` wrote"
        )
    return CheckpointError(what, got=got, expected=expected, fix=fix)
