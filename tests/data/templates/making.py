"""Templates of tests."""

from prompt_tuning.data.templates.read import Template


def make(jinja: str, answer_choices: str | None = None, name: str = "mine") -> Template:
    """Returns a template as if it were read from `my.yaml`."""
    return Template(name, "5f0-1", jinja, answer_choices, True, True, ("Accuracy",), "my.yaml")
