"""Similarity, agreement, calibration and Grad-CAM against NumPy and by hand."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf import OnlineDistiller, analysis, data, networks
from afd_tf.analysis import figures, pictures
from afd_tf.cli import analyse


def batches(*arrays, sizes=(5, 1, 7)):
    start = 0
    for size in sizes:
        yield tuple(array[start : start + size] for array in arrays)
        start += size


def random_maps(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(13, *shape))


# Maps ---------------------------------------------------------------------------------


def test_distances_are_those_of_all_maps_at_once():
    a, b = random_maps(3, 2, 4), random_maps(3, 2, 4, seed=1) + 0.5
    a[4] = 0.0
    distances = analysis.MapDistances()
    for some, others in batches(a, b):
        distances.update(some.astype("float32"), others.astype("float32"))
    flat = [maps.reshape(13, -1) for maps in (a, b)]
    cosines = [
        0.0 if i == 4 else x @ y / np.sqrt((x @ x) * (y @ y))
        for i, (x, y) in enumerate(zip(*flat))
    ]
    expected = {
        "l1": np.mean(np.abs(a - b)),
        "l2": np.mean((a - b) ** 2),
        "cosine": np.mean(cosines),
    }
    assert distances.result() == pytest.approx(expected, rel=1e-6)


def cka_of_kernels(x, y):
    """Kornblith et al.: HSIC of centred Gram matrices over observations."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = (centre @ (rows @ rows.T) @ centre for rows in (x, y))
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


def cka(*maps, **options):
    accumulated = analysis.LinearCKA([m.shape[-1] for m in maps])
    for some in batches(*maps, **options):
        accumulated.update(list(some))
    return accumulated


def test_cka_is_that_of_the_kernels_for_any_channels():
    a, b = random_maps(2, 3, 4), random_maps(2, 3, 6, seed=1)
    b[..., :4] += 0.7 * a
    result = cka(a, b)
    expected = cka_of_kernels(a.reshape(-1, 4), b.reshape(-1, 6))
    assert 0.1 < expected < 0.9
    assert result.result(0, 1) == pytest.approx(expected, rel=1e-10)
    assert result.result(1, 0) == pytest.approx(expected, rel=1e-10)
    assert result.result(0, 0) == pytest.approx(1.0, rel=1e-12)
    whole = cka(a, b, sizes=(13,))
    assert whole.result(0, 1) == pytest.approx(expected, rel=1e-10)


def test_cka_does_not_see_rotation_scale_or_offset():
    a = random_maps(2, 2, 4)
    rotation = np.linalg.qr(random_maps(4, 4)[0])[0]
    assert cka(a, 3.0 * a @ rotation + 1e4).result(0, 1) == pytest.approx(1.0, 1e-9)
    assert cka(a, a @ np.diag([1, 5, 1, 1])).result(0, 1) < 0.9


def test_cka_of_constant_maps_is_not_defined():
    a = random_maps(2, 2, 4)
    assert np.isnan(cka(a, np.full_like(a, 0.3)).result(0, 1))


# Answers ------------------------------------------------------------------------------


def test_agreement_of_a_case_by_hand():
    first = np.array([0, 1, 2, 2, 0, 1, 1, 0])
    second = np.array([0, 1, 0, 1, 0, 2, 1, 1])
    labels = np.array([0, 1, 2, 1, 2, 0, 0, 0])
    agreement = analysis.Agreement()
    for some in batches(first, second, labels, sizes=(3, 5)):
        agreement.update(*some)
    # Alike: 0, 1, 4, 6. Both right: 0, 1. Only the first: 2, 7; only the second: 3.
    assert agreement.result() == {
        "agreement": 4 / 8,
        "both_right": 2 / 8,
        "first_only": 2 / 8,
        "second_only": 1 / 8,
        "both_wrong": 3 / 8,
    }


def test_calibration_of_a_case_by_hand():
    # Five bins; 0.6 belongs to (0.4, 0.6].
    confidences = [0.55, 0.6, 0.7, 0.75, 1.0]
    right = [True, False, True, True, False]
    probabilities = np.array([[c, 1 - c] for c in confidences])
    labels = np.where(right, 0, 1)
    calibration = analysis.Calibration(bins=5)
    calibration.update(probabilities[:2], labels[:2])
    calibration.update(probabilities[2:], labels[2:])
    result = calibration.result()
    assert [each["examples"] for each in result["bins"]] == [0, 0, 2, 2, 1]
    assert result["bins"][2] == pytest.approx(
        {"examples": 2, "confidence": 0.575, "accuracy": 0.5}
    )
    assert result["bins"][0]["accuracy"] is None
    expected = (2 * abs(0.5 - 0.575) + 2 * abs(1 - 0.725) + 1 * abs(0 - 1.0)) / 5
    assert result["ece"] == pytest.approx(expected)
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["confidence"] == pytest.approx(np.mean(confidences))


def test_calibration_has_fifteen_bins_closed_above():
    calibration = analysis.Calibration()
    calibration.update(np.array([[1 / 15] * 15, [9 / 15] + [6 / 15 / 14] * 14]), [0, 0])
    counts = [each["examples"] for each in calibration.result()["bins"]]
    assert len(counts) == 15
    assert counts[8] == 1
    assert sum(counts) == 2


# Grad-CAM -----------------------------------------------------------------------------


def classifier(channels=4, size=8, stride=2, name=None, classes=3):
    images = keras.Input((size, size, 2))
    x = keras.layers.Conv2D(channels, 3, strides=stride, padding="same", name="conv")(
        images
    )
    x = keras.layers.Activation("tanh", name="map")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
    return keras.Model(images, x, name=name)


@pytest.mark.parametrize("trainable", [True, False])
def test_grad_cam_of_pooling_and_a_dense_layer_is_that_of_its_weights(trainable):
    model = classifier(size=4, stride=1)
    model.trainable = trainable
    tapped = networks.tap(model)
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("float32")
    classes = np.array([0, 1, 2, 1, 0])
    maps = np.asarray(tapped.forward(x)[0], np.float64)
    kernel = np.asarray(model.get_layer("logits").kernel, np.float64)
    # Of a mean over 16 positions, every gradient is the weight over 16.
    cams = np.einsum("bijk,kb->bij", maps, kernel[:, classes]) / 16
    cams = np.maximum(cams, 0)
    cams /= cams.max(axis=(1, 2), keepdims=True)
    assert cams.min() == 0.0
    np.testing.assert_allclose(analysis.grad_cam(tapped, x, classes), cams, atol=1e-5)


def test_grad_cam_has_the_size_of_the_image_and_is_empty_without_evidence():
    model = classifier()
    tapped = networks.tap(model)
    x = np.ones((2, 8, 8, 2), "float32")
    assert analysis.grad_cam(tapped, x, [0, 1]).shape == (2, 8, 8)
    model.get_layer("logits").kernel.assign(tf.zeros((4, 3)))
    assert not analysis.grad_cam(tapped, x, [0, 1]).any()


# Whole networks -----------------------------------------------------------------------


@pytest.fixture
def three():
    """Networks with maps 4x4x4, 4x4x4 and 2x2x6."""
    return OnlineDistiller(
        [
            classifier(4, name="a"),
            classifier(4, name="b"),
            classifier(6, stride=4, name="c"),
        ],
        "dml",
    )


def test_networks_are_compared_over_ragged_batches_as_over_all_at_once(three):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(13, 8, 8, 2)).astype("float32")
    labels = rng.integers(0, 3, 13)
    dataset = tf.data.Dataset.from_tensor_slices((x, labels)).batch(5)
    found = analysis.compare(three, dataset)
    assert json.loads(json.dumps(found)) == found
    assert found["examples"] == 13

    maps = [np.asarray(tapped.forward(x)[0], np.float64) for tapped in three.taps]
    pooled = [m.reshape(13, 2, 2, 2, 2, 4).mean(axis=(2, 4)) for m in maps[:2]]
    pooled.append(maps[2])
    answers = {k: np.asarray(v) for k, v in three.predict(x, verbose=0).items()}
    by_pair = {tuple(pair["networks"]): pair for pair in found["pairs"]}
    assert list(by_pair) == [("a", "b"), ("a", "c"), ("b", "c")]
    for (i, j), pair in zip([(0, 1), (0, 2), (1, 2)], found["pairs"], strict=True):
        rows = [pooled[k].reshape(-1, pooled[k].shape[-1]) for k in (i, j)]
        assert pair["maps"]["cka"] == pytest.approx(cka_of_kernels(*rows), rel=1e-4)
        assert pair["maps"]["size"] == [2, 2]
        one, other = (answers[name].argmax(axis=1) for name in pair["networks"])
        expected = np.mean(one == other)
        assert pair["predictions"]["agreement"] == pytest.approx(expected)
    difference = pooled[0] - pooled[1]
    same = by_pair["a", "b"]["maps"]
    assert same["l1"] == pytest.approx(np.abs(difference).mean(), rel=1e-4)
    assert same["l2"] == pytest.approx(np.square(difference).mean(), rel=1e-4)
    other = by_pair["a", "c"]["maps"]
    assert other["channels"] == [4, 6]
    assert not {"l1", "l2", "cosine"} & set(other)
    for name, values in found["networks"].items():
        expected = np.mean(answers[name].argmax(axis=1) == labels)
        assert values["accuracy"] == pytest.approx(expected)
    assert list(found["networks"]) == ["a", "b", "c", "ensemble"]


def test_branches_are_together_what_their_gate_says():
    network = networks.build("resnet8", 3, (8, 8, 2))
    distiller = OnlineDistiller([network], "one")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 8, 8, 2)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, rng.integers(0, 3, 40))).batch(16)
    found = analysis.compare(distiller, dataset)
    together = np.asarray(distiller(x)["ensemble"]).max(axis=1).mean()
    mean = np.mean([np.asarray(own(x)) for own in distiller.networks], axis=0)
    assert abs(together - np.asarray(tf.nn.softmax(mean)).max(axis=1).mean()) > 1e-4
    confidence = found["networks"]["ensemble"]["confidence"]
    assert confidence == pytest.approx(together, rel=1e-5)
    assert list(found["networks"])[:-1] == distiller.network_names


def test_an_empty_data_set_is_refused(three):
    with pytest.raises(ValueError, match=r"`dataset`.*empty"):
        analysis.compare(three, [])


def test_a_comparison_is_laid_out_as_text():
    values = {"accuracy": 0.5, "confidence": 0.75, "ece": 0.25, "bins": []}
    answers = {
        "agreement": 0.5,
        "both_right": 0.25,
        "first_only": 0.125,
        "second_only": 0.0,
        "both_wrong": 0.625,
    }
    maps = {"size": [4, 4], "channels": [8, 16], "cka": 0.5}
    text = analysis.as_text(
        {
            "examples": 1000,
            "networks": {"small": values},
            "pairs": [
                {"networks": ["small", "b"], "maps": maps, "predictions": answers}
            ],
        }
    )
    assert text.splitlines() == [
        "1,000 images",
        "",
        "network  accuracy  confidence    ECE",
        "------------------------------------",
        "small       50.00       75.00  25.00",
        "",
        "feature maps  size  channels  L1  L2  cosine     CKA",
        "----------------------------------------------------",
        "small, b       4x4     8, 16   -   -       -  0.5000",
        "",
        "answers (1, 2)  agree  both right  only 1  only 2  both wrong",
        "-------------------------------------------------------------",
        "small, b        50.00       25.00   12.50    0.00       62.50",
    ]


# The command --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from afd_tf.cli import train

    path = tmp_path_factory.mktemp("runs") / "run"
    settings = {
        "networks": ["resnet8", "wrn10_1"],
        "epochs": 1,
        "batch_size": 512,
        "method": "dml",
        "tensorboard": False,
    }
    arguments = [f"--gin_param=train.{k} = {v!r}" for k, v in settings.items()]
    assert train.main([*arguments, f"--workdir={path}"]) == 0
    return path


def test_a_run_is_analysed_on_its_whole_test_set(run, capsys):
    assert analyse.main([str(run)]) == 0
    shown = capsys.readouterr().out
    found = json.loads((run / "analysis" / "analysis.json").read_text())
    results = json.loads((run / "results.json").read_text())
    assert found["examples"] == 359
    ended = ("epoch", "step", "weights_sha256")
    assert {key: found[key] for key in ended} == {key: results[key] for key in ended}
    for name, values in results["networks"].items():
        own = found["networks"][name]["accuracy"]
        assert own == pytest.approx(values["accuracy"], abs=1e-6)
    ensemble = found["networks"]["ensemble"]["accuracy"]
    assert ensemble == pytest.approx(results["ensemble"]["accuracy"], abs=1e-6)
    assert "epoch 1 on digits (test), 359 images" in shown
    text = (run / "analysis" / "analysis.txt").read_text()
    assert text.strip() in shown
    drawn = {path.name for path in (run / "analysis").glob("*.png")}
    assert drawn == {"calibration.png", "grad_cam.png"}


def test_an_analysis_of_an_unfinished_run_says_of_which_step(run, tmp_path):
    unfinished = tmp_path / "run"
    shutil.copytree(run, unfinished, ignore=shutil.ignore_patterns("results.json"))
    assert analyse.main([str(unfinished)]) == 0
    found = json.loads((unfinished / "analysis" / "analysis.json").read_text())
    results = json.loads((run / "results.json").read_text())
    assert (found["epoch"], found["step"]) == (1, results["step"])
    assert found["weights_sha256"] == results["weights_sha256"]


def test_without_matplotlib_there_is_text_and_how_to_install_it(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(figures, "available", lambda: False)
    assert analyse.main([str(run), f"--output={tmp_path / 'out'}"]) == 0
    assert 'pip install "afd_tf[plot]"' in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"analysis.json", "analysis.txt"}
    assert analyse.main([str(run), "--images=0"]) == 2
    assert "Expected matplotlib" in capsys.readouterr().err


def test_chosen_images_are_drawn_with_every_network(run, tmp_path):
    from PIL import Image

    Image.new("L", (40, 30), 128).save(tmp_path / "grey.png")
    images = f"--images=0,358,{tmp_path / 'grey.png'}"
    output = tmp_path / "out"
    assert analyse.main([str(run), images, f"--output={output}"]) == 0
    with Image.open(output / "grad_cam.png") as image:
        # Three rows; the image and two networks in a row.
        assert 0.7 < image.width / image.height < 0.95
        assert len(image.convert("RGB").getcolors(2**24)) > 100
    assert not (output / "analysis.json").is_symlink()


@pytest.mark.parametrize("name", ["analysis.txt", "grad_cam.png"])
def test_a_file_that_cannot_be_written_is_named_in_one_line(
    run, tmp_path, capsys, name
):
    (tmp_path / name).mkdir()
    assert analyse.main([str(run), f"--output={tmp_path}"]) == 2
    shown = capsys.readouterr().err
    assert "`output`" in shown
    assert str(tmp_path / name) in shown
    assert len(shown.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--images=359"], "numbers below 359"),
        (["{run}", "--images=nothing.png"], "Missing image"),
        (["{run}/nothing"], "Expected the directory of a run"),
        ([], "Expected one run's directory"),
        (["{run}", "--output={run}/config.gin/x"], "`output`"),
    ],
)
def test_a_mistake_is_one_line(run, capsys, arguments, message):
    arguments = [argument.replace("{run}", str(run)) for argument in arguments]
    assert analyse.main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1


def test_pictures_are_found_by_number_and_shown_without_normalisation():
    _, test, info = data.load("digits", 64, augmentation=False)
    raw = np.concatenate([images.numpy() for images, _ in test])
    labels = np.concatenate([own.numpy() for _, own in test])
    images, found, names = pictures.choose(["100", "3", "100"], test, info)
    np.testing.assert_array_equal(images, raw[[100, 3, 100]])
    assert found == labels[[100, 3, 100]].tolist()
    assert names == ["100", "3", "100"]
    images, _, names = pictures.choose(3, test, info)
    assert names == ["0", "179", "358"]
    shown = pictures.pixels(images, info)
    np.testing.assert_allclose(shown, raw[[0, 179, 358]] * info.std + info.mean, 1e-5)
    assert shown.min() >= 0
    assert shown.max() <= 1
