"""From wherever a run stands to its last epoch."""

import dataclasses
import time

from afd_tf.devices.workers import Workers
from afd_tf.errors import integer, lookup
from afd_tf.text import counted
from afd_tf.training import failures
from afd_tf.training.callbacks.metrics_file import MetricsFile
from afd_tf.training.callbacks.nonfinite import SkipNonFinite, StopOnNonFinite
from afd_tf.training.callbacks.progress import Progress
from afd_tf.training.callbacks.saving import RestoredEpoch, Save, Saver, StopIfAsked
from afd_tf.training.callbacks.tensorboard import TensorBoard
from afd_tf.training.checkpoints import Checkpoints, Position
from afd_tf.training.state import METRICS, State

_CONTINUE = "What was saved is kept."


@dataclasses.dataclass(frozen=True)
class Options:
    """What a run leaves behind while it trains, and what it does about bad steps.

    Attributes:
        keep: int >= 1, number of checkpoints kept.
        checkpoint_steps: int >= 1, steps between two of them, or None.
        checkpoint_minutes: float > 0, minutes between two of them, or None.
        non_finite: "stop" or "skip", what to do at a NaN or infinite loss.
        tensorboard: bool, whether to write TensorBoard's logs.
        evaluate_every: int >= 1, epochs between two evaluations.
    """

    keep: int = 3
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = 10
    non_finite: str = "stop"
    tensorboard: bool = True
    evaluate_every: int = 1

    def __post_init__(self):
        integer("keep", self.keep, 1)
        integer("evaluate_every", self.evaluate_every, 1)
        if self.checkpoint_steps is not None:
            integer("checkpoint_steps", self.checkpoint_steps, 1)
        minutes = self.checkpoint_minutes
        number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
        if minutes is not None and not (number and minutes > 0):
            raise ValueError(
                "Invalid value for argument `checkpoint_minutes`. Expected a number "
                f"above 0, or None. Received: checkpoint_minutes={minutes!r}."
            )
        lookup("non_finite", self.non_finite, {"stop": None, "skip": None})


def fit(experiment, run, interruption, options):
    """Train from the step that was saved last on; record and save every epoch.

    Every `options.evaluate_every` epochs, and after the last one, evaluate too.

    Args:
        experiment: Experiment.
        run: RunDirectory.
        interruption: Interruption.
        options: Options.

    Raises:
        Interrupted: if a signal asked to stop; the step was finished and saved.
        NonFiniteLossError: if a loss became NaN or infinite.
        OutOfMemoryError: if a step needs more memory than there is.
        WorkerLostError: if another worker ended or does not answer.
        ValueError: if the data or all checkpoints are damaged.
    """
    state = State(experiment.distiller)
    workers = Workers(experiment.distiller.distribute_strategy)
    saver = Saver(Checkpoints(run.checkpoints, options.keep), state, workers)
    try:
        with interruption.between_steps(), failures.readable(_CONTINUE):
            restored = saver.restore()
            start = restored.position if restored else Position(0)
            epochs = experiment.epochs
            if restored and workers.is_chief:
                in_all = counted(epochs, "epoch")
                print(f"Continuing {run.path} after {start}; {in_all} in all.")
            _pretrain(experiment, interruption, workers)
            if start < Position(epochs):
                experiment.distiller.fit(
                    experiment.train,
                    validation_data=experiment.evaluation,
                    validation_freq=_evaluated(epochs, options.evaluate_every),
                    epochs=epochs,
                    initial_epoch=start.epoch,
                    initial_step=start.step,
                    callbacks=_callbacks(
                        experiment,
                        run,
                        interruption,
                        options,
                        state,
                        workers,
                        saver,
                        restored,
                    ),
                    shuffle=False,
                    verbose=0,
                )
    finally:
        saver.close()


def _pretrain(experiment, interruption, workers):
    """Train what the method needs beforehand; a checkpoint has it done already."""
    if not experiment.distiller.needs_pretraining:
        return
    started = time.monotonic()
    if workers.is_chief:
        epochs = experiment.distiller.method.feature.pretraining_epochs
        what = f"Trains what the method needs beforehand, {counted(epochs, 'epoch')}."
        print(what, flush=True)  # minutes before anything else is shown
    history = experiment.distiller.pretrain(
        experiment.train, callbacks=[StopIfAsked(interruption, workers)], verbose=0
    )
    errors_of_epochs = history.history["loss"]
    if workers.is_chief:
        print(
            f"Trained beforehand, {counted(len(errors_of_epochs), 'epoch')} in "
            f"{time.monotonic() - started:.0f} s: reconstruction error "
            f"{errors_of_epochs[0]:.4g}, then {errors_of_epochs[-1]:.4g}."
        )


def _evaluated(epochs, every):
    """List the epochs after which to evaluate, counted from 1: the last one always."""
    return sorted({*range(every, epochs + 1, every), epochs})


def _callbacks(experiment, run, interruption, options, state, workers, saver, restored):
    """Return what happens besides the steps, in the order in which it must happen."""
    info, train = experiment.info, experiment.train
    steps = info.steps_per_epoch
    start = restored.position if restored else Position(0)
    record = restored.record if restored else {}
    # Data of the user's own may not know how to begin in the middle of an epoch.
    position = getattr(train, "position", None)
    callbacks, recorded = [], []
    if restored:

        def set_metrics():
            state.write(restored.values, METRICS)

        callbacks.append(RestoredEpoch(start, steps, position, set_metrics))
    watch = StopOnNonFinite(saver)
    if options.non_finite == "skip":
        recorded.append(SkipNonFinite(state, workers, record))
    # After the one that puts a bad step's logs back.
    callbacks += [*recorded, watch]
    if workers.is_chief:
        recorded.append(MetricsFile(run.metrics, steps, record))
        callbacks.append(recorded[-1])
    if options.tensorboard and workers.is_chief:
        config = run.read_config()
        done = start.epoch * steps + start.step
        callbacks.append(TensorBoard(run.logs, steps, info.batch_size, config, done))
    # After those whose files a checkpoint must not be ahead of.
    callbacks.append(
        Save(
            saver,
            lambda: {k: v for part in recorded for k, v in part.record().items()},
            watch,
            interruption,
            workers,
            start=start,
            steps=steps,
            every_steps=options.checkpoint_steps,
            every_minutes=options.checkpoint_minutes,
            within_epochs=position is not None,
        )
    )
    return [*callbacks, Progress()] if workers.is_chief else callbacks


def evaluate(experiment):
    """Return the metrics on the evaluation data: dict of str to float."""
    with failures.readable(_CONTINUE):
        return experiment.distiller.evaluate(
            experiment.evaluation, return_dict=True, verbose=0
        )
