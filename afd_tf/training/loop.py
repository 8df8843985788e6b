"""From wherever a run stands to its last epoch."""

import dataclasses

from afd_tf.training import errors
from afd_tf.training.checkpoints import Checkpoints, Position
from afd_tf.training.checks import check_integer
from afd_tf.training.metrics_file import MetricsFile
from afd_tf.training.nonfinite import StopOnNonFinite
from afd_tf.training.progress import Progress
from afd_tf.training.saving import Resume, Save, Saver
from afd_tf.training.state import METRICS, State
from afd_tf.training.tensorboard import TensorBoard


@dataclasses.dataclass(frozen=True)
class Saving:
    """How often a run is saved, besides the end of every epoch.

    Attributes:
        keep: int >= 1, number of checkpoints kept.
        checkpoint_steps: int >= 1, steps between two of them, or None.
        checkpoint_minutes: float > 0, minutes between two of them, or None.
    """

    keep: int = 3
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = 10

    def __post_init__(self):
        check_integer("keep", self.keep, 1)
        if self.checkpoint_steps is not None:
            check_integer("checkpoint_steps", self.checkpoint_steps, 1)
        minutes = self.checkpoint_minutes
        number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
        if minutes is not None and not (number and minutes > 0):
            raise ValueError(
                "Invalid value for argument `checkpoint_minutes`. Expected a number "
                f"above 0, or None. Received: checkpoint_minutes={minutes!r}."
            )


def fit(experiment, run, interruption, saving, *, tensorboard=True):
    """Train from the step that was saved last on; evaluate, record, save every epoch.

    Args:
        experiment: Experiment.
        run: RunDirectory.
        interruption: Interruption.
        saving: Saving.
        tensorboard: bool.

    Raises:
        Interrupted: if a signal asked to stop; the step was finished and saved.
    """
    state = State(experiment.distiller)
    saver = Saver(Checkpoints(run.checkpoints, saving.keep), state)
    try:
        with interruption.between_steps(), errors.readable(_CONTINUE):
            _fit(experiment, run, interruption, saving, tensorboard, state, saver)
    finally:
        saver.close()


_CONTINUE = "What was saved is kept."


def _fit(experiment, run, interruption, saving, tensorboard, state, saver):
    info, model = experiment.info, experiment.distiller
    steps, epochs = info.steps_per_epoch, experiment.epochs
    restored = saver.restore()
    start = restored.position if restored else Position(0)
    record = restored.record if restored else {}
    if restored:
        print(f"Continuing {run.path} after {start}; {epochs} epochs in all.")
    if start >= Position(epochs):
        return
    # Data of the user's own may not know how to begin in the middle of an epoch.
    position = getattr(experiment.train, "position", None)
    metrics_file = MetricsFile(run.metrics, steps, record)
    watch = StopOnNonFinite(saver)
    callbacks = [watch, metrics_file]
    if restored:
        callbacks.insert(
            0,
            Resume(
                start,
                steps,
                position,
                lambda: state.write(restored.values, METRICS),
            ),
        )
    if tensorboard:
        config = run.config.read_text(encoding="utf-8")
        done = start.epoch * steps + start.step
        callbacks.append(TensorBoard(run.logs, steps, info.batch_size, config, done))
    # Saved last: what a checkpoint knows is on disk already.
    callbacks.append(
        Save(
            saver,
            metrics_file.record,
            watch,
            interruption,
            start=start,
            steps=steps,
            every_steps=saving.checkpoint_steps,
            every_minutes=saving.checkpoint_minutes,
            within_epochs=position is not None,
        )
    )
    model.fit(
        experiment.train,
        validation_data=experiment.evaluation,
        epochs=epochs,
        initial_epoch=start.epoch,
        callbacks=[*callbacks, Progress()],
        shuffle=False,
        verbose=0,
    )


def evaluate(experiment):
    """Return the metrics on the evaluation data: dict of str to float."""
    return experiment.distiller.evaluate(
        experiment.evaluation, return_dict=True, verbose=0
    )
