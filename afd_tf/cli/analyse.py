"""afd-analyse: how alike a run's networks are, and where they look."""

import contextlib
from pathlib import Path

from afd_tf.cli import command, flags
from afd_tf.errors import InvalidValue, invalid
from afd_tf.files import write_json, write_text
from afd_tf.text import printable

_IMAGES = 6
_PLOT = 'pip install "afd_tf[plot]"'


def _execute(values, arguments, argv):
    del argv
    if len(arguments) != 1:
        raise InvalidValue(
            "Expected one run's directory. See afd-analyse --help. Received: "
            f"{arguments}."
        )
    params = flags.as_params(values, "data_dir")
    with command.opened_run(arguments[0], params) as (run, settings):
        from afd_tf import analysis
        from afd_tf.analysis import figures, pictures
        from afd_tf.training import restore
        from afd_tf.training.outcome import weights_digest

        draws = figures.available()
        if values.images and not draws:
            expected = "matplotlib, which draws them, to be installed"
            hint = f"Install it: {_PLOT}."
            raise invalid("images", expected, values.images, hint=hint)
        restored, position = restore(run.path, settings, values.trust_source)
        info = restored.info
        chosen = None
        if draws:
            wanted = values.images or _IMAGES
            chosen = pictures.choose(wanted, restored.evaluation, info)
        comparison = analysis.compare(restored.distiller, restored.evaluation)
        output = Path(values.output or run.path / "analysis")
        head = f"{run.path}: {position} on {info.name} ({info.evaluated_split}), "
        text = printable(head) + analysis.as_text(comparison)
        # As results.json has them: whether this is of the finished run can be told.
        analysed = {
            "epoch": position.epoch,
            "step": position.epoch * info.steps_per_epoch + position.step,
            "weights_sha256": weights_digest(restored.distiller.networks),
        }
        with _writing(output):
            _write(output, text, {**analysed, **comparison})
        print(text)
        if chosen is None:
            print(f"\nNo figures: matplotlib is not installed ({_PLOT}).")
        else:
            with _writing(output):
                figures.draw_calibration(output / "calibration.png", comparison)
                _draw_grad_cams(output / "grad_cam.png", restored, *chosen)
    print(f"\nWritten to {output}")
    return 0


def _write(output, text, content):
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "analysis.json", content)
    write_text(output / "analysis.txt", text + "\n")


@contextlib.contextmanager
def _writing(output):
    """Say in words that a file cannot be written."""
    try:
        yield
    except OSError as error:
        received = f"output={str(output)!r} ({error})"
        expected = "a folder that can be written"
        raise invalid("output", expected, received=received) from error


def _draw_grad_cams(path, restored, images, labels, numbers):
    """Show where networks look for an image's class, in a file for their answers."""
    from afd_tf.analysis import figures, grad_cam, pictures

    distiller, info = restored.distiller, restored.info
    answers = distiller.predict(images, verbose=0)
    classes = info.class_names
    cams, captions = {}, {}
    for name, tapped in zip(distiller.network_names, distiller.taps, strict=True):
        own = answers[name].argmax(axis=1)
        wanted = [
            answer if label is None else label
            for label, answer in zip(labels, own, strict=True)
        ]
        cams[name] = grad_cam(tapped, images, wanted)
        captions[name] = [
            f"{name}\n{classes[answer]} {100 * shares[answer]:.0f} %"
            for answer, shares in zip(own, answers[name], strict=True)
        ]
    titles = [
        Path(number).name if label is None else f"{number}\n{classes[label]}"
        for number, label in zip(numbers, labels, strict=True)
    ]
    figures.draw_grad_cams(path, pictures.pixels(images, info), cams, titles, captions)


COMMAND = command.Command(
    name="afd-analyse",
    usage="RUN [flags]",
    summary="Compare the networks of a run on the whole evaluated set: similarity of "
    "feature maps (L1, L2, cosine, linear CKA), agreement of answers, calibration "
    "(ECE). Writes analysis.txt, analysis.json and, with matplotlib, calibration.png "
    "and grad_cam.png.",
    examples=(
        "afd-analyse runs/a",
        "afd-analyse runs/a --images=0,17,cat.jpg --output=cat",
    ),
    flags=(
        flags.strings(
            "images",
            "Images to show Grad-CAM on: numbers in the evaluated set, or files, with "
            f"commas between. Default: {_IMAGES} of the set, at equal distances.",
        ),
        flags.string("output", "Folder to write to. Default: RUN/analysis."),
        flags.DATA_DIR,
        flags.TRUST_SOURCE,
    ),
    execute=_execute,
    takes_arguments=True,
)

main, run = command.entry_points(COMMAND)
