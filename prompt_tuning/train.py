"""The training run, top to bottom: check, initialise, compile, loop.

The update itself is `make_train_step` in `training/step.py`; where the weights come from is `run/start.py`.
"""

import collections
import dataclasses
import errno
import os
import time
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from prompt_tuning import tree
from prompt_tuning.checkpoints import json_files, one_writer
from prompt_tuning.checkpoints.config import CheckpointConfig
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.method_files import folded
from prompt_tuning.checkpoints.prompt_files.write import save_prompts, update_info
from prompt_tuning.data import batches, evaluation
from prompt_tuning.data.batch_shapes import BatchShapes
from prompt_tuning.data.evaluation import EvaluatorConfig
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params.names import is_added
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import (
    checks,
    compilation_cache,
    identity,
    startup_times,
    steps,
    template_table,
    tracking,
)
from prompt_tuning.run.evaluators import DecodingEval, TeacherForcingEval, format_metrics
from prompt_tuning.run.model_info import model_info
from prompt_tuning.run.optimizer_start import starting_from
from prompt_tuning.run.preemption import Notice, Preempted
from prompt_tuning.run.start import Start, initialize, open_initial, split_paths
from prompt_tuning.run.startup_times import StartupTimes
from prompt_tuning.training.run_log import RunLog
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.trackers import Tracker
from prompt_tuning.training.trainer import Trainer
from prompt_tuning.types import PyTree

# Steps handed to the device before the oldest is waited for. One keeps it busy while the host prepares the next; more
# would make the save after a notice wait for them, and spot capacity is taken away 10 to 15 seconds after its notice.
STEPS_IN_FLIGHT = 2


@dataclasses.dataclass
class Run:
    """What the loop works with.

    Attributes:
      state: Changes with every step; its buffers are donated.
      frozen: Never changes and is never donated.
      num_steps: Updates this run makes in all.
      metadata: Recorded in every checkpoint and prompt file.
      model_dir: Where everything is written.
      checkpointer: Saves and restores the state.
      log: Progress bar and summaries.
      notice: Whether the run has been told to stop.
      times: The phases before the first step.
      teacher_forcing: Evaluation of loss and token accuracy; None for none.
      decoding: Evaluation of decoded answers; None for none.
    """

    state: TrainState
    frozen: PyTree
    num_steps: int
    metadata: dict[str, Any]
    model_dir: epath.Path
    checkpointer: Checkpointer
    log: RunLog
    notice: Notice
    times: StartupTimes
    teacher_forcing: TeacherForcingEval | None = None
    decoding: DecodingEval | None = None


@one_writer.holding_folder("model_dir", "MODEL_DIR")
def train(
    *,
    model: EncoderDecoderModel,
    model_dir: str,
    train_dataset_cfg: batches.DatasetConfig,
    train_eval_dataset_cfg: batches.DatasetConfig | None,
    infer_eval_dataset_cfg: batches.DatasetConfig | None,
    checkpoint_cfg: CheckpointConfig,
    partitioner: PjitPartitioner,
    trainer: Trainer,
    total_steps: int | None = None,
    relative_steps: int | None = None,
    eval_steps: int = 20,
    eval_period: int = 1000,
    random_seed: int | None = None,
    trainable_regex: Sequence[str] = (".*",),
    evaluator: EvaluatorConfig,
    initialize_from_scratch: bool = False,
    tracker: Tracker | None = None,
    config_text: str = "",
) -> dict[str, dict[str, float]]:
    """Trains the parameters that `trainable_regex` selects; all others stay bit for bit as they were loaded.

    A run that finds checkpoints of its own in `model_dir` goes on from the latest: same weights, optimizer, dropout
    masks and batches as if it had never stopped.

    Args:
      model: The model.
      model_dir: Output folder of the run.
      train_dataset_cfg: Training data.
      train_eval_dataset_cfg: Teacher-forcing evaluation; None for none.
      infer_eval_dataset_cfg: Evaluation by decoding, which selects the best checkpoint; None for none.
      checkpoint_cfg: What to start from; how often to save (steps) and how many to keep.
      partitioner: Mesh and axis rules.
      trainer: Optimizer, learning rate and microbatches.
      total_steps: TRAIN_STEPS. With a T5X checkpoint at step S this counts S too, as in T5X.
      relative_steps: TRAIN_STEPS_RELATIVE: updates of this run; wins over `total_steps`.
      eval_steps: Batches of one teacher-forcing evaluation.
      eval_period: Updates between evaluations.
      random_seed: None draws one, which is recorded and used again at resume.
      trainable_regex: Regular expressions over whole parameter paths.
      evaluator: How much is evaluated and written.
      initialize_from_scratch: Allows random weights where there is no initial checkpoint.
      tracker: Where the run is written to beside TensorBoard; None for nowhere.
      config_text: The resolved gin config, written to `model_dir/config.gin`.

    Returns:
      The metrics of the last evaluation, `{task: {metric: value}}`.

    Raises:
      ConfigError, DataError, CheckpointError: Before anything compiles, if something does not fit.
      NonFiniteError: If the loss or a gradient stops being finite; the last good checkpoint is kept.
      Preempted: After SIGTERM, when the state is saved.
    """
    times = startup_times.take()
    compilation_cache.keep_in(model_dir)
    packs = train_dataset_cfg.pack and model.prompt is not None
    train_dataset_cfg = checks.as_trained(model, train_dataset_cfg)
    if train_eval_dataset_cfg:
        train_eval_dataset_cfg = checks.as_trained(model, train_eval_dataset_cfg)
    if infer_eval_dataset_cfg:
        infer_eval_dataset_cfg = checks.with_tasks(model, infer_eval_dataset_cfg)
    # 1. Refuse what cannot work before anything is loaded or compiled.
    checks.enter(model, train_dataset_cfg)
    cfgs = (train_dataset_cfg, train_eval_dataset_cfg, infer_eval_dataset_cfg)
    checks.check_training(model, partitioner, trainer, list(filter(None, cfgs)), trainable_regex)
    source = open_initial(checkpoint_cfg.restore, from_scratch=initialize_from_scratch)
    num_steps = identity.steps_of_this_run(total_steps, relative_steps, source)
    times.end("checks")

    # 2. Weights, optimizer and the place in the data.
    checkpointer = Checkpointer(model_dir, keep=checkpoint_cfg.save.keep)
    trainer, optimizer_state = starting_from(
        trainer,
        source,
        {path: model.param_shapes[path] for path in split_paths(model, trainable_regex)[0]},
        resumed=checkpointer.latest_metadata(),
    )
    seed = identity.agree_on_seed(random_seed, checkpointer)
    metadata = identity.describe(model, train_dataset_cfg, model_dir, seed, config_text)
    metadata["restored_step"] = trainer.optimizer.restored_step
    names: list[str] = ["training data", *identity.EVALUATIONS]
    data = dict(zip(names, cfgs, strict=True))
    metadata[identity.MADE_FROM] = identity.describe_training(model, data, trainer, trainable_regex)
    identity.check_same_run(checkpointer, metadata)
    identity.say_what_is_left(checkpointer.latest_step(), num_steps)
    tx = trainer.make_tx()
    start = initialize(
        model,
        partitioner,
        tx,
        source=source,
        frozen_dtype=checkpoint_cfg.restore.dtype,
        trainable_regex=trainable_regex,
        checkpointer=checkpointer,
        rng=jax.random.key(seed),
        optimizer_state=optimizer_state,
    )
    metadata |= start.metadata
    jax.block_until_ready((start.state, start.frozen))
    times.end("weights")
    run = open_run(start, model, checkpointer, num_steps, metadata, config_text, times, tracker)
    try:
        shapes = BatchShapes(
            train_dataset_cfg.batch_size,
            batches.check_lengths(train_dataset_cfg.task_feature_lengths),
            prompt_length=model.num_prompt_positions,
            packs=packs,
            width_multiple=partitioner.num_parts("length"),
            row_multiple=partitioner.mesh.shape["data"] * (trainer.num_microbatches or 1),
        )

        # 3. The loop.
        # What is evaluated has been saved, so that an evaluation may stop between any two batches.
        stop = run.notice.stop_if_received
        if train_eval_dataset_cfg and eval_steps:
            run.teacher_forcing = TeacherForcingEval(
                model,
                train_eval_dataset_cfg,
                partitioner,
                run.model_dir,
                eval_steps,
                stop,
                run.log.tracked,
            )
        if infer_eval_dataset_cfg:
            run.decoding = DecodingEval(
                model, infer_eval_dataset_cfg, partitioner, run.model_dir, evaluator, stop
            )
        times.end("evaluation_data")
        return loop(
            run,
            steps.train_step(model, partitioner, trainer, tx, run.state, shapes),
            partitioner,
            train_dataset_cfg,
            shapes,
            save_period=checkpoint_cfg.save.period,
            eval_period=eval_period,
        )
    except Preempted:
        run.log.write(
            f"Told to stop: step {int(run.state.step)} is saved, from which the run goes on"
        )
        raise
    finally:
        run.notice.close()
        checkpointer.close()
        run.log.close()
        if run.teacher_forcing:
            run.teacher_forcing.close()


def loop(
    run: Run,
    jitted_step: Any,
    partitioner: PjitPartitioner,
    cfg: batches.DatasetConfig,
    shapes: BatchShapes,
    *,
    save_period: int,
    eval_period: int,
) -> dict[str, dict[str, float]]:
    """Runs the updates that are left; order of one turn: update, log, save, stop if told to, evaluate."""
    first = int(run.state.step)
    stream = batches.train_batches(
        cfg, seed=run.metadata["seed"], start_example=first * cfg.batch_size
    )
    compiled, results, in_flight = {}, {}, collections.deque()
    # Virtual CPU devices share threads: steps in flight can starve one another's collectives, and XLA then aborts.
    shares_threads = jax.default_backend() == "cpu" and jax.device_count() > 1
    num_in_flight = 0 if shares_threads else STEPS_IN_FLIGHT

    def evaluates(step: int) -> bool:
        return step == run.num_steps or step % eval_period == 0

    if first and evaluates(first):
        # The run may have been stopped between this save and its evaluation, and cannot know whether it was.
        results = evaluate(run, first)
        run.times.end("evaluation")
    for step in range(first + 1, run.num_steps + 1):
        cut = shapes.fit(next(stream))
        batch = partitioner.shard_batch(cut)
        if step == first + 1:
            run.times.end("first_batch")
        shape = shapes.describe(cut)
        if shape not in compiled:
            compiled[shape] = compile_step(jitted_step, partitioner, run, batch, shape)
        if step == first + 1:
            run.times.end("compile")
            run.notice.listen()
        run.state, metrics = compiled[shape](run.state, run.frozen, batch)
        in_flight.append(metrics)
        # The first step is waited for, because the log tells how long it took.
        if len(in_flight) > num_in_flight or step == first + 1:
            jax.block_until_ready(in_flight.popleft())
        if step == first + 1:
            run.times.end("first_step")
            run.log.started(step, run.times.seconds)
        run.log.add(step, {**metrics, **shapes.count(cut)})

        is_told_to_stop = run.notice.received()
        # Saved before it is evaluated, so that a notice may end the evaluation; the next start does it again.
        if is_told_to_stop or evaluates(step) or step % save_period == 0:
            save(run, step, cfg)
        if is_told_to_stop:
            raise Preempted
        if evaluates(step):
            results = evaluate(run, step)
    return results


def compile_step(
    jitted_step: Any, partitioner: PjitPartitioner, run: Run, batch: PyTree, shape: str
) -> Any:
    """Returns the step compiled for the shape of `batch`; logs how long that took."""
    began = time.perf_counter()
    with partitioner.activate():
        compiled = steps.compiled(jitted_step, run.state, run.frozen, batch)
    run.log.compiled(
        int(run.state.step), time.perf_counter() - began, shape, num_bytes=steps.bytes_of(compiled)
    )
    return compiled


def save(run: Run, step: int, cfg: batches.DatasetConfig) -> None:
    """Saves a state whose losses were all finite: what was added as files of its own, then the checkpoint."""
    # Waits for the losses that are still on the way, and raises if one is not finite: before anything is written.
    run.log.flush()
    if jax.process_index() == 0 and not run.model_dir.exists():
        # To make it again would leave a run without what it has left so far.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run.model_dir))
    metadata = {**run.metadata, "step": step, "examples_seen": step * cfg.batch_size}
    with run.log.pause():
        added = added_of(run.state.trainable)
        # A run that is killed in between takes the step again and writes the same prompt again; in the other order it
        # would go on from the checkpoint, and the prompt of this step would be missing for good.
        if added:
            # What the run was made from is for those who go on with it.
            info = {name: x for name, x in metadata.items() if name != identity.MADE_FROM}
            save_prompts(str(run.model_dir), step, *folded.as_used(added, info))
        run.checkpointer.save(step, run.state, metadata)


def evaluate(run: Run, step: int) -> dict[str, dict[str, float]]:
    """Evaluates the state of `step`, which has been saved, and records its score beside it."""
    params = tree.merge(run.state.trainable, run.frozen)
    with run.log.pause():
        if run.teacher_forcing:
            run.teacher_forcing.run(params, step)
        results = run.decoding.run(params, step) if run.decoding else {}
        for task, metrics in results.items():
            run.log.write(f"step {step}: {task} {format_metrics(metrics)}")
        template_table.show(results, run.model_dir, step, run.log.write)
        selected = evaluation.default_metric(results)
        if selected is None:
            return results
        name, value = selected
        run.checkpointer.ledger.record(step, name, value)
        run.log.evaluated(step, results, run.checkpointer.ledger.best.get(name))
        if added_of(run.state.trainable):
            info = {"metric": {"name": name, "value": value}, "metrics": results}
            update_info(str(run.model_dir), step, info)
    return results


def added_of(trainable: PyTree) -> dict[str, Any]:
    """Returns by path what the prompt and the method added among the trainable parameters."""
    return {path: leaf for path, leaf in tree.flatten(trainable).items() if is_added(path)}


def open_run(
    start: Start,
    model: EncoderDecoderModel,
    checkpointer: Checkpointer,
    num_steps: int,
    metadata: dict[str, Any],
    config_text: str,
    times: StartupTimes,
    tracker: Tracker | None,
) -> Run:
    """Writes config.gin and model-info.txt and opens the log."""
    directory = epath.Path(metadata["model_dir"])
    info = model_info(model, start.state.trainable, start.frozen)
    if jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        json_files.write_atomically(directory / "config.gin", config_text.encode())
        json_files.write_atomically(directory / "model-info.txt", info.encode())
    log = RunLog(
        directory,
        first=int(start.state.step),
        total=num_steps,
        config_text=config_text,
        tracked=tracking.open_tracked(tracker, directory, metadata, config_text),
    )
    return Run(
        start.state,
        start.frozen,
        num_steps,
        metadata,
        directory,
        checkpointer,
        log,
        Notice(),
        times,
    )
