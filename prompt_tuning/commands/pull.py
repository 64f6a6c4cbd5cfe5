"""Copy a prompt, or what a method added, from the Hugging Face hub into a folder."""

from collections.abc import Sequence

from etils import epath

from prompt_tuning.checkpoints import hub
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.config.flags import command_parser

_EPILOG = """\
REPO is owner/name or owner/name@revision. DIR must not exist yet, and goes wherever a prompt or a method file does. So
does hf://REPO itself, without this command, on a machine that reaches the hub.
"""


def main(argv: Sequence[str]) -> None:
    """Downloads one commit of a repository.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If there is none, or it holds neither a prompt nor a method.
      ConfigError: If DIR exists, or a flag is wrong.
    """
    parser = command_parser("pull", __doc__, _EPILOG)
    parser.add_argument("repo", metavar="REPO", help="owner/name, or owner/name@revision")
    parser.add_argument("target", metavar="DIR", help="folder to make; local or gs://")
    flags = parser.parse_args(list(argv))
    target = epath.Path(flags.target)
    write.check_target(target, file_format="peft", base_model=None)
    name = hub.PREFIX + flags.repo.removeprefix(hub.PREFIX)
    folder = hub.local(name)
    # The cache's folder, where other programs may have put the rest of the repository.
    there = [folder / file for file in hub.FILES]
    files = {file.name: file.read_bytes() for file in there if file.is_file()}
    target.parent.mkdir(parents=True, exist_ok=True)
    write.write_folder(target, files)
    print(f"{target}: {', '.join(sorted(files))} of {hub.pinned(name)}")
