"""One experiment: build it, fit it, write its results."""

import contextlib
import functools
import inspect

from afd_tf import data
from afd_tf.devices import clusters, strategies
from afd_tf.devices.workers import Workers
from afd_tf.distiller import OnlineDistiller
from afd_tf.files import write_json, write_text
from afd_tf.runs import commits
from afd_tf.runs.provenance import (
    Provenance,
    agree,
    data_digest,
    read_dataset,
    record_dataset,
)
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training import construction, failures, loop, outcome
from afd_tf.training.callbacks.saving import load
from afd_tf.training.checkpoints import Checkpoints, no_checkpoint
from afd_tf.training.description import describe
from afd_tf.training.interruption import Interruption
from afd_tf.training.restoring import record_networks
from afd_tf.training.source import record_source
from afd_tf.training.state import State


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
    strategy="auto",
    workers=None,
    task=None,
    steps_per_execution=1,
    evaluate_every=1,
    non_finite="stop",
    tensorboard=True,
    keep=3,
    checkpoint_steps=None,
    checkpoint_minutes=10,
    load_data=data.load,
    distiller=OnlineDistiller,
    compile=OnlineDistiller.compile,
    dry_run=False,
    provenance=None,
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
        strategy: "auto", "single", "mirrored", "multi_worker" or a
            `tf.distribute.Strategy`, see `afd_tf.devices.strategies.strategy`. Of
            several workers the first, the chief, alone writes.
        workers: str, `host:port` of all workers, separated by commas; or None, for the
            cluster of TF_CONFIG or of Slurm.
        task: int, which of `workers` this process is.
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
        load_data: callable, `afd_tf.data.load` with or without options of its own.
        distiller: callable that makes an `OnlineDistiller` of networks.
        compile: callable that compiles it, given `steps_per_execution` and
            `total_steps`.
        dry_run: bool, print what would be trained; train and write nothing.
        provenance: `Provenance`, or None for a run from Python.

    Returns:
        dict, the content of `results.json`; `{}` for a dry run.

    Raises:
        ValueError: if an argument is invalid, or `workdir` holds something else; before
            anything is written.
        NonFiniteLossError: if a loss becomes NaN or infinite, and stays so.
        OutOfMemoryError: if a step needs more memory than there is.
        Interrupted: if a signal stopped the run.
        WorkerLostError: if another worker ended or does not answer any more.
    """
    arguments = dict(locals())
    options = loop.Options(
        keep,
        checkpoint_steps,
        checkpoint_minutes,
        non_finite,
        tensorboard,
        evaluate_every,
    )
    run = RunDirectory(workdir)
    provenance = provenance or Provenance.from_arguments(train, arguments)
    chief = clusters.is_chief(strategy, workers, task)
    if not dry_run:
        if chief:
            run.check(provenance.config)
        if run.results.exists():
            return run.read_results()
    interruption = Interruption()
    with interruption.listening():
        # Before all else of TensorFlow, which workers insist on.
        arguments["strategy"] = (
            strategies.of_one_process(strategy)
            if dry_run
            else strategies.strategy(strategy, workers, task)
        )
        # Anew: TensorFlow's service of workers has taken SIGTERM for itself.
        with interruption.listening():
            return _train(run, chief, arguments, provenance, interruption, options)


def _train(run, chief, arguments, provenance, interruption, options):
    seed, epochs = arguments["seed"], arguments["epochs"]
    with construction.environment(
        seed, arguments["deterministic"], arguments["precision"]
    ):
        experiment = construction.build(
            **{name: arguments[name] for name in construction.ARGUMENTS}
        )
        if arguments["dry_run"]:
            print(describe(experiment))
            return {}
        workers = Workers(experiment.distiller.distribute_strategy)
        with failures.readable():
            agree(workers, provenance.config, experiment.info, experiment.source)
        computed_by = commits.of_run(run)
        with run.started(provenance.config) if chief else contextlib.nullcontext():
            if chief:
                with run.writing():
                    record_dataset(run, experiment.info)
                    record_networks(run, experiment.distiller)
                    record_source(run, experiment.source)
                    write_json(run.commits, computed_by)
                    write_text(run.operative_config, provenance.operative_config())
            if workers.is_chief:
                print(f"{run.path}: run directory.")
            loop.fit(experiment, run, interruption, options)
            results = outcome.make_results(
                loop.evaluate(experiment),
                experiment.distiller,
                method=experiment.distiller.method.name,
                dataset=arguments["dataset"],
                data=data_digest(experiment.info),
                seed=seed,
                epoch=epochs,
                step=epochs * experiment.info.steps_per_epoch,
                source=experiment.source,
                command=provenance.command,
                commits=computed_by,
            )
            if chief:
                hint = "Training is finished: the same command writes the rest."
                with run.writing(hint):
                    write_json(run.results, results)
    return results


def restore(workdir, arguments):
    """Build a run's experiment again and load its newest checkpoint.

    Args:
        workdir: path of the run directory.
        arguments: dict, what `train` was given.

    Returns:
        Experiment and the `Position` of the checkpoint.

    Raises:
        ValueError: if there is no checkpoint, or it does not fit.
    """
    run = RunDirectory(workdir)
    strategy = strategies.of_one_process(arguments["strategy"])
    arguments = {**arguments, "strategy": strategy}
    if run.dataset.is_file():
        arguments["load_data"] = _as_in_training(run, arguments["load_data"])
    experiment = construction.build(
        **{name: arguments[name] for name in construction.ARGUMENTS}
    )
    found = Checkpoints(run.checkpoints).newest()
    if found is None:
        raise no_checkpoint(workdir)
    _check_classes(run, experiment.info)
    load(found, State(experiment.distiller).write)
    return experiment, found.position


def _as_in_training(run, load_data):
    """Let data be normalised as a run's was, if the function can be told."""
    earlier = read_dataset(run)
    given = {key: earlier[key] for key in ("mean", "std")}
    takes = inspect.signature(load_data).parameters
    return functools.partial(
        load_data, **{k: v for k, v in given.items() if k in takes}
    )


def _check_classes(run, info):
    """Check that images and labels mean to the networks what they meant in training."""
    earlier = read_dataset(run)
    for what in ("image_shape", "class_names"):
        if list(getattr(info, what)) != earlier[what]:
            raise ValueError(
                f"Invalid value for argument `data_dir`. Expected data of the {what} "
                f"that the run in {run.path} was trained on. Received: data of other "
                f"{what}."
            )
