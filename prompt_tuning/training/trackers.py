"""Experiment trackers that a run writes to beside TensorBoard: Weights & Biases and MLflow.

Where they are, who writes and to which project is said to them, as elsewhere, by their own variables and logins.
"""

import abc
import dataclasses
import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from absl import logging

from prompt_tuning.errors import ConfigError

# What names in MLflow may hold.
_NOT_IN_MLFLOW = re.compile(r"[^\w\-./ :]")
_LONGEST_IN_MLFLOW = 6000


class TrackedRun:
    """A run in a tracker, open for writing; `write_scalars` and `close` are those of clu's `MetricWriter`.

    A write that fails is told once, and nothing is written after it: it does not end the run that it is about.

    Args:
      run_id: What the tracker finds it by.
      log: Writes numbers by name, of a step.
      end: Ends it, as finished or not.
    """

    def __init__(
        self,
        run_id: str,
        log: Callable[[int, Mapping[str, float]], object],
        end: Callable[[bool], object],
    ):
        self.run_id = run_id
        self._log = log
        self._end = end
        self._is_open = True

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers under their names."""
        self._try(self._log, step, scalars)

    def close(self) -> None:
        """Ends the tracked run, as failed while an error is on its way; closing twice does nothing."""
        self._try(self._end, sys.exc_info()[0] is None)
        self._is_open = False

    def _try(self, write: Callable[..., object], *args: Any) -> None:
        if not self._is_open:
            return
        try:
            write(*args)
        except Exception as error:
            self._is_open = False
            logging.warning("The tracker failed and gets nothing more of this run: %r", error)


@dataclasses.dataclass(frozen=True)
class Tracker(abc.ABC):
    """What a training run is written to beside TensorBoard.

    Attributes:
      group: What runs have in common, such as a sweep: W&B's group, MLflow's experiment. None for what is set there.
      labels: What tells the run from others of its group.
    """

    group: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    package: ClassVar[str]

    def __post_init__(self) -> None:
        """Looks whether the tracker's package is installed."""
        if importlib.util.find_spec(self.package) is None:
            raise ConfigError(
                f"The tracker {type(self).__name__} is not installed",
                got=f"no package {self.package}",
                expected="the extra of its name",
                fix=f"pip install 'prompt-tuning[{self.package}]', or leave --tracker out",
            )

    @abc.abstractmethod
    def start(
        self, run_id: str | None, name: str, params: Mapping[str, Any], config_text: str
    ) -> TrackedRun:
        """Returns a tracked run, open for writing; may raise whatever the tracker does.

        Args:
          run_id: Of the one that goes on; None for a new one.
          name: For people.
          params: Name -> value of all that the run was made from.
          config_text: The resolved gin config, kept as the file `config.gin`.
        """


@dataclasses.dataclass(frozen=True)
class Wandb(Tracker):
    """Weights & Biases: WANDB_PROJECT, WANDB_MODE=offline, `wandb login`."""

    package: ClassVar[str] = "wandb"

    def start(
        self, run_id: str | None, name: str, params: Mapping[str, Any], config_text: str
    ) -> TrackedRun:
        """See `Tracker`."""
        import wandb

        # It would ask, and a run has nobody to answer.
        is_online = wandb.setup().settings.mode == "online"
        if is_online and not wandb.login(prompt=False, verify=False):
            raise ConfigError(
                "Nobody is logged in to Weights & Biases",
                got="no API key",
                expected="one of `wandb login` or WANDB_API_KEY",
                fix="log in, or set WANDB_MODE=offline",
            )
        # A script may have a run of its own open, which is not this one.
        run = wandb.init(
            id=run_id,
            resume="allow",
            reinit="create_new",
            name=name,
            group=self.group,
            config=dict(params),
        )
        # W&B's own steps only ever grow; a run that goes on after a kill takes some again.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        file = pathlib.Path(run.dir) / "config.gin"
        file.write_text(config_text)
        run.save(str(file), base_path=run.dir, policy="now")
        return TrackedRun(
            run.id,
            lambda step, scalars: run.log({"step": step, **scalars}),
            lambda is_finished: run.finish(0 if is_finished else 1),
        )


@dataclasses.dataclass(frozen=True)
class MLflow(Tracker):
    """MLflow: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME."""

    package: ClassVar[str] = "mlflow"

    def start(
        self, run_id: str | None, name: str, params: Mapping[str, Any], config_text: str
    ) -> TrackedRun:
        """See `Tracker`."""
        import mlflow

        experiment = self.group or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        # Of two processes that make an experiment at once, one does not have it set.
        where = mlflow.set_experiment(experiment).experiment_id if experiment else None
        run = mlflow.start_run(run_id, experiment_id=where, run_name=None if run_id else name)
        if run_id is None:
            # They cannot be changed, and are those of the first start.
            mlflow.log_params(
                {_named(key): str(x)[:_LONGEST_IN_MLFLOW] for key, x in params.items()}
            )
            mlflow.log_text(config_text, "config.gin")
        return TrackedRun(
            run.info.run_id,
            lambda step, scalars: mlflow.log_metrics(
                {_named(key): value for key, value in scalars.items()}, step
            ),
            lambda is_finished: mlflow.end_run("FINISHED" if is_finished else "FAILED"),
        )


def _named(key: str) -> str:
    """A name that MLflow takes."""
    return _NOT_IN_MLFLOW.sub("_", key)
