"""The training loop: a run from its settings to its results."""

import contextlib
import time

from afd_tf.data import position_of
from afd_tf.devices import clusters, strategies
from afd_tf.devices.rendezvous import Rendezvous, check_same
from afd_tf.devices.workers import Workers
from afd_tf.errors import InvalidValue
from afd_tf.files import mismatch, with_room, write_json, write_text
from afd_tf.runs import configuration
from afd_tf.runs.data_record import record_data
from afd_tf.runs.provenance import Provenance, commits_of
from afd_tf.runs.run_directory import LOCATION, RunDirectory
from afd_tf.text import counted
from afd_tf.training import failures
from afd_tf.training.callbacks.metrics_file import MetricsFile
from afd_tf.training.callbacks.nonfinite import SkipNonFinite, StopOnNonFinite
from afd_tf.training.callbacks.progress import Progress
from afd_tf.training.callbacks.saving import (
    RestoredEpoch,
    Save,
    Saver,
    StopIfAsked,
    joined_records,
)
from afd_tf.training.callbacks.tensorboard import TensorBoard
from afd_tf.training.checkpoints import Checkpoints, Position
from afd_tf.training.experiment import build, environment
from afd_tf.training.interruption import Interruption
from afd_tf.training.outcome import make_results
from afd_tf.training.restoring import record_networks
from afd_tf.training.settings import Settings
from afd_tf.training.source import record_source
from afd_tf.training.state import METRICS, State

_UNWRITTEN = "Training is finished and saved: the same command writes the rest."
_RECORD = {"rows": [dict], "seconds": float, "stopped": bool}


def train(
    workdir,
    *,
    networks,
    dataset="digits",
    method="afd",
    method_options=None,
    topology=None,
    source=None,
    source_network=None,
    epochs=300,
    batch_size=128,
    seed=0,
    deterministic=False,
    data_dir=None,
    validation=0.0,
    precision="float32",
    max_layers=10_000,
    strategy="auto",
    workers=None,
    task=None,
    worker_timeout=300,
    steps_per_execution=1,
    evaluate_every=1,
    non_finite="stop",
    tensorboard=True,
    keep=3,
    checkpoint_steps=None,
    checkpoint_minutes=10,
    load_data=None,
    distiller=None,
    compile=None,
    callbacks=(),
    dry_run=False,
    provenance=None,
    trust_source=True,
):
    """Train networks together; leave all of the run in a directory.

    A finished run is not repeated: its results are returned. An interrupted one goes on
    from the step that was saved last, and ends as if it had not been interrupted: to
    the bit if it is deterministic. SIGTERM and SIGINT let it finish its step, save and
    raise `Interrupted`, a `KeyboardInterrupt`.

    Args:
        workdir: path of the run directory.
        networks: list of names (see `afd_tf.networks.names()`) or callables from
            `num_classes` and `input_shape` to a Keras model. At least two; one is
            enough with a `source` and for method "one".
        dataset: str, see `afd_tf.data.load`.
        method: str, one of `afd_tf.methods.names()`.
        method_options: dict of the method's own options, or None.
        topology: str, who learns from whom: "cycle" or "all_pairs". None: "cycle", or
            from the `source` alone.
        source: path of a network that is trained already, from which the others learn:
            a finished run's directory, a `.keras` file or a SavedModel; or None.
        source_network: str, which network of `source`; needed if it has several.
        epochs: int, passes over the training data.
        batch_size: int, images per step over all devices.
        seed: int >= 0, for initial weights, order and augmentation of the data.
        deterministic: bool, same result to the bit on the same machine. Stays on for
            the rest of the process, as TensorFlow has it.
        data_dir: path of the data, or None for the default place.
        validation: float in [0, 1), fraction of train held out and evaluated in place
            of the test set.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        max_layers: int, the depths of all networks together. A larger number is refused
            before anything is built: a hundred layers take a second to build.
        strategy: "auto", "single", "mirrored", "multi_worker" or a
            `tf.distribute.Strategy`, see `afd_tf.devices.strategies.strategy`. Of
            several workers the first, the chief, alone writes.
        workers: str, `host:port` of all workers, separated by commas; or None, for the
            cluster of TF_CONFIG or of Slurm.
        task: int, which of `workers` this process is.
        worker_timeout: float, seconds to wait for all workers to join.
        steps_per_execution: int, steps per call of the compiled function.
        evaluate_every: int >= 1, epochs between two evaluations; there is one after
            the last epoch in any case.
        non_finite: what to do at a step that makes a loss NaN or infinite: "stop" with
            an error, or "skip", undo it and go on, which costs a few percent of time.
        tensorboard: bool, whether to write `logs/`.
        keep: int >= 1, number of checkpoints kept.
        checkpoint_steps: int >= 1, steps between two checkpoints, or None. There is one
            after every epoch in any case.
        checkpoint_minutes: float > 0, minutes between two checkpoints, or None.
        load_data: callable that loads the data as `afd_tf.data.load` does. Default
            None: that function.
        distiller: callable that makes an `OnlineDistiller` of networks. Default None:
            the class.
        compile: callable that compiles it, given `steps_per_execution` and
            `total_steps`. Default None: `OnlineDistiller.compile`.
        callbacks: list of `keras.callbacks.Callback`, on every worker. They come after
            the check for NaN and before whatever records: what they add to an epoch's
            logs is in `metrics.csv`, and what they change of the model is in the
            checkpoint; what they remember themselves is not. If one sets
            `stop_training`, the run is finished after that epoch. They are no part of
            the configuration.
        dry_run: bool, print what would be trained; train and write nothing.
        provenance: `Provenance`, or None for a run from Python.
        trust_source: bool, whether `source` may be a SavedModel, whose graph can read
            and write files. Commands say False unless they are told otherwise.

    Returns:
        dict, the content of `results.json`; `{}` for a dry run.

    Raises:
        InvalidValue, InvalidType: if an argument is invalid, or `workdir` holds
            something else; before anything is written.
        NonFiniteLossError: if a loss becomes NaN or infinite, and stays so.
        OutOfMemoryError: if a step needs more memory than there is.
        Interrupted: if a signal stopped the run.
        WorkerLostError: if another worker ended or does not answer any more.

    Example:
    ```python
    results = train("runs/a", networks=["resnet8", "resnet20"], epochs=30)
    results["networks"]["resnet8"]["accuracy"]
    ```
    """
    settings = Settings(
        networks=networks,
        dataset=dataset,
        method=method,
        method_options=method_options,
        topology=topology,
        source=source,
        source_network=source_network,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        deterministic=deterministic,
        data_dir=data_dir,
        validation=validation,
        precision=precision,
        max_layers=max_layers,
        strategy=strategy,
        workers=workers,
        task=task,
        worker_timeout=worker_timeout,
        steps_per_execution=steps_per_execution,
        evaluate_every=evaluate_every,
        non_finite=non_finite,
        tensorboard=tensorboard,
        keep=keep,
        checkpoint_steps=checkpoint_steps,
        checkpoint_minutes=checkpoint_minutes,
        load_data=load_data,
        distiller=distiller,
        compile=compile,
    )
    run = RunDirectory(workdir)
    provenance = provenance or Provenance.from_python(settings.values())
    chief = clusters.is_chief(strategy, workers, task)
    if not dry_run:
        if chief:
            run.check(provenance.config)
        if run.results.exists():
            return run.read_results()
    else:
        strategy, workers, task = strategies.of_one_process(strategy), None, None
    interruption = Interruption()
    with interruption.listening(), _joined(settings, dry_run) as rendezvous:
        if rendezvous:
            check_same("settings", rendezvous.gather(_shared(provenance.config)))
        # Before all else of TensorFlow, which workers insist on.
        placement = strategies.strategy(strategy, workers, task)
        if rendezvous:
            rendezvous.on_loss(strategies.abort_collectives)
        group = Workers(placement, rendezvous)
        # Anew: TensorFlow's service of workers has taken SIGTERM for itself.
        with interruption.listening(), environment(seed, deterministic, precision):
            experiment = build(
                settings, placement, workers=group, trust_source=trust_source
            )
            if dry_run:
                print(experiment.describe())
                return {}
            if rendezvous is None and group.count > 1:
                with failures.readable():
                    group.check_same("settings", _shared(provenance.config))
            return _train(
                run, settings, experiment, callbacks, provenance, interruption, group
            )


def _joined(settings, dry_run):
    """Return the `Rendezvous` of all workers; nothing, in a context, without any."""
    if dry_run or settings.strategy != "multi_worker":
        return contextlib.nullcontext()
    cluster = clusters.find(settings.workers, settings.task)
    return Rendezvous(cluster, settings.worker_timeout)


def _shared(config):
    """Return the statements of a configuration that all workers have in common."""
    statements = configuration.statements(config)
    return {k: v for k, v in statements.items() if k not in LOCATION}


def _train(run, settings, experiment, callbacks, provenance, interruption, workers):
    commits = commits_of(run)
    chief = workers.is_chief
    with run.started(provenance.config) if chief else contextlib.nullcontext():
        if chief:
            with run.writing():
                record_data(run, experiment.info)
                record_networks(run, experiment.distiller)
                record_source(run, experiment.source)
                write_json(run.commits, commits)
                write_text(run.operative_config, provenance.operative_config())
            print(f"{run.path}: run directory.")
        identity = configuration.digest(provenance.config, LOCATION)
        epochs = _fit(
            run, identity, settings, experiment, callbacks, workers, interruption
        )
        results = make_results(
            experiment.evaluate(),
            experiment,
            settings,
            epoch=epochs,
            command=provenance.command,
            commits=commits,
        )
        if chief:
            with run.writing(_UNWRITTEN):
                room = Checkpoints(run.checkpoints).free
                with_room(lambda: write_json(run.results, results), room)
    return results


def _fit(run, identity, settings, experiment, callbacks, workers, interruption):
    """Train from the step that was saved last on; return the number of epochs done."""
    distiller, epochs = experiment.distiller, experiment.epochs
    steps = experiment.info.steps_per_epoch
    state = State(distiller)
    saver = Saver(Checkpoints(run.checkpoints, settings.keep, identity), state, workers)
    try:
        with interruption.between_steps(), failures.readable(failures.KEPT):
            restored = saver.restore()
            start = restored.position if restored else Position(0)
            record = restored.record if restored else {}
            if restored:
                _check_restored(restored, epochs, steps)
            metrics = MetricsFile(run.metrics, steps, record, saver.free)
            if restored and workers.is_chief:
                in_all = counted(epochs, "epoch")
                print(f"Continuing {run.path} after {start}; {in_all} in all.")
            _pretrain(experiment, interruption, workers)
            if record.get("stopped") or start >= Position(epochs):
                done = start.epoch
            else:
                history = distiller.fit(
                    experiment.train,
                    validation_data=experiment.evaluation,
                    validation_freq=_evaluated(epochs, settings.evaluate_every),
                    epochs=epochs,
                    initial_epoch=start.epoch,
                    initial_step=start.step,
                    callbacks=_callbacks(
                        run,
                        settings,
                        experiment,
                        callbacks,
                        workers,
                        interruption,
                        state,
                        saver,
                        restored,
                        metrics,
                    ),
                    shuffle=False,
                    verbose=0,
                )
                done = history.epoch[-1] + 1
                _check_saved(saver, Position(done), workers)
        if workers.is_chief:
            with run.writing(_UNWRITTEN):
                metrics.write()  # again: its last row may have found no room
        return done
    finally:
        saver.close()


def _check_restored(checkpoint, epochs, steps):
    """Check that what a checkpoint says of itself can be gone on from."""
    position, record = checkpoint.position, checkpoint.record
    wrong = mismatch(record, _RECORD)
    if not (0 <= position.step <= steps and Position(0) < position <= Position(epochs)):
        in_all = counted(epochs, "epoch")
        wrong = f"it is of {position}, of a run of {in_all} of {steps} steps"
    if wrong:
        raise InvalidValue(f"Damaged checkpoint {str(checkpoint.path)!r}: {wrong}.")


def _check_saved(saver, end, workers):
    """Check that the final state was saved; results of another one would deceive."""
    saver.wait()
    if workers.total(saver.last != end)[0]:
        again = f"goes on after {saver.last}" if saver.last else "begins again"
        raise InvalidValue(
            "Training is finished, but its last state could not be saved: the warning "
            f"above says why. Put that right; the same command {again}."
        )


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
    errors = history.history["loss"]
    if workers.is_chief:
        print(
            f"Trained beforehand, {counted(len(errors), 'epoch')} in "
            f"{time.monotonic() - started:.0f} s: reconstruction error "
            f"{errors[0]:.4g}, then {errors[-1]:.4g}."
        )


def _evaluated(epochs, every):
    """List the epochs after which to evaluate, counted from 1: the last one always."""
    return sorted({*range(every, epochs + 1, every), epochs})


def _callbacks(
    run,
    settings,
    experiment,
    callbacks,
    workers,
    interruption,
    state,
    saver,
    restored,
    metrics,
):
    """Return all callbacks, the user's own among them, in the order they need."""
    info, train = experiment.info, experiment.train
    steps = info.steps_per_epoch
    start = restored.position if restored else Position(0)
    record = restored.record if restored else {}
    # Data of the user's own may not know how to begin in the middle of an epoch.
    position = position_of(train)
    # Called in this order: `first`, the watch, the user's, `recording`, the one that
    # saves. What `record()` of `first` and `recording` returns is in a checkpoint.
    first, recording = [], []
    if restored:

        def set_metrics():
            state.write(restored.values, METRICS)

        first.append(RestoredEpoch(start, steps, position, set_metrics))
    watch = StopOnNonFinite(saver)
    if settings.non_finite == "skip":
        # Before all that read logs: it puts a bad step's back.
        first.append(SkipNonFinite(state, workers, record))
    if workers.is_chief:  # which alone writes the run directory
        recording.append(metrics)
        if settings.tensorboard:
            config = run.read_config()
            # Of an epoch whose evaluation is to come, events may be there already.
            done = start.epoch * steps
            recording.append(
                TensorBoard(run.logs, steps, info.batch_size, config, done)
            )
    # After those whose files a checkpoint must not be ahead of.
    save = Save(
        saver,
        lambda: joined_records([*first, *recording]),
        watch,
        interruption,
        workers,
        start=start,
        steps=steps,
        every_steps=settings.checkpoint_steps,
        every_minutes=settings.checkpoint_minutes,
        within_epochs=position is not None,
    )
    every = [*first, watch, *callbacks, *recording, save]
    return [*every, Progress()] if workers.is_chief else every
