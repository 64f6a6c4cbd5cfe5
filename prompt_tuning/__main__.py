"""Lets `python -m prompt_tuning COMMAND` stand for `prompt-tuning COMMAND`."""

import sys

from prompt_tuning import cli

if __name__ == "__main__":
    sys.exit(cli.main())
