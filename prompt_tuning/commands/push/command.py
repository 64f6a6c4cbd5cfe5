"""The command `prompt-tuning push`: one commit with what a run tuned, its adapter for PEFT, its recipe and a card."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from etils import epath

from prompt_tuning.checkpoints import hub, paths
from prompt_tuning.checkpoints.ledger import Ledger
from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files.method_set import METHOD_FILE
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.prompt_files import peft, source
from prompt_tuning.checkpoints.prompt_files.read import FOLDER
from prompt_tuning.commands.export import added
from prompt_tuning.commands.push import card
from prompt_tuning.config.flags import command_parser
from prompt_tuning.errors import CheckpointError, ConfigError, PromptTuningError

_EPILOG = """\
RUN is a MODEL_DIR, REPO a model's repository, owner/name; where there is none yet a private one is made. One commit
holds the files that the run saved, bit for bit; an adapter of PEFT, where PEFT has one for this; the run's config.gin;
and README.md, in which fields are left to you. What you write into them, or anywhere outside of the marks, stays when
you push again. The record, config.gin and README.md name folders of this machine.
"""


def main(argv: Sequence[str]) -> None:
    """Pushes what a run tuned.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If the run has saved no prompt and no method, or the hub refuses it.
      ConfigError: If a flag does not fit, huggingface_hub is not installed, nobody is signed in, or the metadata of
        README.md is refused.
    """
    parser = command_parser("push", "Put a run's prompt or method on the hub.", _EPILOG)
    parser.add_argument("run", metavar="RUN", help="the run's MODEL_DIR")
    parser.add_argument("repo", metavar="REPO", help="owner/name")
    parser.add_argument(
        "--step",
        help="a number, latest, or best, by the dev metric (default: the best where there is one, else the latest)",
    )
    parser.add_argument(
        "--base_model",
        help="the frozen model on the hub, as google/t5-base-lm-adapt, for the card and the adapter",
    )
    flags = parser.parse_args(list(argv))
    repo = hub.parse(hub.PREFIX + flags.repo.removeprefix(hub.PREFIX)).id
    hub.check_token()
    run = epath.Path(flags.run)
    folder = _folder(run, flags.step)
    saved, info = _saved(folder)
    scores = [x for x in Ledger(run).best.values() if x["step"] == info["step"]]
    recipe = run / hub.RECIPE
    files = dict(saved)
    if recipe.is_file():
        files[hub.RECIPE] = recipe.read_bytes()
    adapter = _adapter(folder, saved, info, flags.base_model)
    lib = hub.library()
    api = lib.HfApi()
    with _errors_of_metadata(), hub.errors_of(repo):
        api.create_repo(repo, private=True, exist_ok=True)
        there = api.list_repo_files(repo)
        own = lib.ModelCard.load(repo) if hub.CARD in there else None
        base_model = flags.base_model
        if not base_model and own and isinstance(own.data.base_model, str):
            base_model = own.data.base_model
        adapter = _naming(base_model, adapter)
        text = card.render(
            repo,
            info,
            scores,
            files=saved,
            recipe=files.get(hub.RECIPE, b"").decode(),
            base_model=base_model,
            is_for_peft=bool(adapter),
            there=own and own.content,
        )
        files |= {**adapter, hub.CARD: text.encode()}
        operations = [lib.CommitOperationAdd(name, data) for name, data in files.items()]
        # What an earlier push left must not be read as a part of this one.
        stale = sorted({*hub.FILES} & {*there} - {*files})
        operations += [lib.CommitOperationDelete(name) for name in stale]
        if api.model_info(repo).private is False:
            print(
                f"warning: {repo} is public, and {hub.RECIPE}, {hub.CARD} and the record name folders of this machine",
                file=sys.stderr,
            )
        commit = api.create_commit(repo, operations, commit_message="prompt-tuning push")
    print(f"{hub.PREFIX}{repo}@{commit.oid}: {', '.join(sorted(files))}")
    print(f"the fields of {hub.CARD} that say TO BE FILLED IN are yours, in {commit.repo_url}")


def _folder(run: epath.Path, step: str | None) -> epath.Path:
    """The folder of what a step of a run saved."""
    if not (run / FOLDER).is_dir():
        raise CheckpointError(
            "RUN has saved no prompt and no method",
            got=str(run),
            expected=f"a MODEL_DIR with {FOLDER}",
            fix="name the folder of a run that tuned one; of a whole model, push what `prompt-tuning export --model`"
            " writes with `hf upload`",
        )
    has_best = len(Ledger(run).steps()) == 1
    return source.resolve(run, step=step or (source.BEST if has_best else None))


def _saved(folder: epath.Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a step of a run by name, and what is recorded of them."""
    files = {
        name: (folder / name).read_bytes() for name in hub.OWN_FILES if (folder / name).is_file()
    }
    info: dict[str, Any] = {}
    # Read as whoever pulls them will read them.
    if METHOD_FILE in files:
        info |= read_set(folder).info
    if {*files} - {METHOD_FILE}:
        prompt, recorded = source.read_source(folder)
        info |= {**recorded, "shape": prompt.shape}
    info["step"] = paths.step_of(None, folder.name)
    return files, info


def _adapter(
    folder: epath.Path, saved: Mapping[str, bytes], info: Mapping[str, Any], base_model: str | None
) -> dict[str, bytes]:
    """The files of an adapter for PEFT; none where PEFT has no form for all that a run tuned."""
    if METHOD_FILE in saved and len(saved) > 1 and not kinds.changes_prompt(info):
        return {}
    with tempfile.TemporaryDirectory() as temporary:
        target = epath.Path(temporary) / "adapter"
        try:
            added.write_added(folder, target, step=None, file_format="peft", base_model=base_model)
        except ConfigError:
            return {}
        return {file.name: file.read_bytes() for file in target.iterdir()}


def _naming(base_model: str | None, adapter: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of an adapter that names this model: one that was found on this machine is nobody else's."""
    if not adapter:
        return {}
    config = {**json.loads(adapter[peft.CONFIG_FILE]), "base_model_name_or_path": base_model}
    encoded = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    return {**adapter, peft.CONFIG_FILE: encoded}


@contextlib.contextmanager
def _errors_of_metadata() -> Iterator[None]:
    """Turns what the hub and its library refuse in a card into an error that says what to do."""
    try:
        yield
    except PromptTuningError:
        raise
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The metadata of {hub.CARD} is refused",
            got=" ".join(str(error).split())[:300],
            expected="metadata of a model's card, with the base model's name on the hub",
            fix=f"correct {hub.CARD} in the repository, or name the frozen model on the hub as --base_model",
        ) from error
