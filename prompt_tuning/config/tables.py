"""What gin files may name, as `names.toml` beside this file lists it."""

import pathlib
import tomllib

TABLES = tomllib.loads(pathlib.Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
