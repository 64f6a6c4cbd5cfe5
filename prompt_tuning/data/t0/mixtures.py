"""T0's mixtures: which templates of which data sets, as which tasks, at which rates."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from prompt_tuning.data.t0.data_sets import DataSet, data_sets
from prompt_tuning.data.templates.origins import Origin
from prompt_tuning.data.templates.read import Key, Template
from prompt_tuning.data.templates.tasks import SCORE_EVAL

# T0 leaves these tasks out: their examples are too long, or were cached wrongly. None is of today's data sets.
BLACKLIST = frozenset(
    [
        *(
            f"hotpot_qa_{setting}_Generate_{what}"
            for setting in ("distractor", "fullwiki")
            for what in (
                "Explanations",
                "Answer_and_Explanations",
                "Answer",
                "Question",
                "Title_1",
                "Title_2",
            )
        ),
        *(f"tab_fact_tab_fact_tab_fact_{number}" for number in range(1, 8)),
        "wiki_hop_masked_Choose_Best_Object_Candidate",
        "wiki_hop_masked_Indirect_Question_about_Birthplace_Citizenship_Place_of_Death",
        "narrativeqa_Template_05",
        "ecthr_cases_alleged_violation_prediction_silver_rationales",
        "gigaword_summarize_",
    ]
)


@dataclasses.dataclass(frozen=True)
class Member:
    """A task of a mixture.

    Attributes:
      data: Its data set.
      template: Its template.
      rate: Its share; equal ones where the mixture is evaluated.
      is_scored: Whether it ranks the answer choices.
    """

    data: DataSet
    template: Template
    rate: float
    is_scored: bool

    @property
    def name(self) -> str:
        """T0's name of the task."""
        suffix = SCORE_EVAL if self.is_scored else ""
        return self.data.task_name(self.template.name) + suffix

    @property
    def origin(self) -> Origin:
        """Where the task comes from: of ANLI, whose rounds count as one, the round."""
        whole = dataclasses.replace(self.data, round="")
        return Origin(self.data.task_name(""), whole.task_name(""), self.template.name)


_Chosen = Callable[[DataSet], bool]


def _trained(*parts: str) -> _Chosen:
    return lambda data: data.train in parts


def _every(templates: Sequence[Template]) -> Sequence[Template]:
    return templates


def _original(templates: Sequence[Template]) -> Sequence[Template]:
    return [template for template in templates if template.original_task]


def _with_choices(templates: Sequence[Template]) -> Sequence[Template]:
    return [template for template in templates if template.answer_choices]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A rule for a mixture.

    Attributes:
      takes: Which data sets.
      chooses: Which of their templates, which come sorted by name.
      is_scored: Whether its tasks rank answer choices, in evaluation, or are trained on.
    """

    takes: _Chosen
    chooses: Callable[[Sequence[Template]], Sequence[Template]] = _every
    is_scored: bool = False

    @property
    def split(self) -> str:
        """The split that it is for."""
        return "validation" if self.is_scored else "train"

    def members(self, templates: Mapping[Key, Sequence[Template]]) -> Iterator[Member]:
        """Yields the tasks for the templates that there are.

        Args:
          templates: Data set and subset -> all its templates.
        """
        for data in data_sets():
            own = templates.get(data.key, ()) if self.takes(data) else ()
            rate = 1.0 if self.is_scored else float(data.rate(len(own) or 1))
            for template in self.chooses(own):
                if data.task_name(template.name) not in BLACKLIST:
                    yield Member(data, template, rate, self.is_scored)


MIXTURES = {
    "t0_train": Mixture(_trained("BASE")),
    "t0+_train": Mixture(_trained("BASE", "GPT_EVAL")),
    "t0++_train": Mixture(_trained("BASE", "GPT_EVAL", "SGLUE")),
    "t0_train_one_og_prompt": Mixture(_trained("BASE"), lambda found: _original(found)[:1]),
    "t0_train_all_og_prompts": Mixture(_trained("BASE"), _original),
    "t0_eval_score_eval": Mixture(
        lambda data: data.eval == "BASE", lambda found: _with_choices(_original(found)), True
    ),
    "t0_train_score_eval": Mixture(_trained("BASE"), _with_choices, True),
    "bias_fairness_eval_score_eval": Mixture(
        lambda data: data.eval == "BIAS_FAIRNESS", _with_choices, True
    ),
}
