"""Settings in which compared runs differ, and their lines in tables."""

import ast
import csv
import io
from pathlib import Path

import pytest
from records import write_seed, write_seeds

from afd_tf import config, methods
from afd_tf.results import tables
from afd_tf.results.comparison import compare
from afd_tf.results.finished_runs import Run
from afd_tf.results.protocol import unequal_settings
from afd_tf.runs.configuration import statements

DECAY = "compile.logit_weight_decay = {}\n"


def online(method, *params):
    return "pairings/cifar100_resnet32_wrn28_4", method, *params


def offline(method, *params):
    return "paper/table1_resnet32_from_wrn28_4_afd", method, *params


def finished(file, method, *params):
    """Return a finished run of a gin file, whose settings are real."""
    params = (f"train.method = {method!r}", *params)
    try:
        settings = statements(config.bind(config.read([file], params)))
    finally:
        config.clear()
    options = ast.literal_eval(settings["train.method_options"]) or {}
    source = "_from_" in file and method not in ("vanilla", "dml")
    content = {
        "method": method,
        "parts": methods.get(method, **options).parts(source),
        "networks": ["resnet32"] if "_from_" in file else ["resnet32", "wrn28_4"],
    }
    return Run(Path(), content, {k: v for k, v in settings.items() if v != "None"})


def test_settings_in_which_a_gain_is_not_the_methods_alone_stand_under_the_name(
    tmp_path,
):
    write_seeds(tmp_path, "vanilla", [0.50, 0.51], more=DECAY.format(1e-4))
    write_seeds(tmp_path, "dml", [0.50, 0.52], more=DECAY.format(1e-4))
    for name in ("afd", "afd_5e-4", "afd_5e-4_again"):
        decay = 1e-4 if name == "afd" else 5e-4
        for seed in range(2):
            # Of the same settings they would be seeds of one configuration.
            tap = f"OnlineDistiller.tap = '{name}'\n"
            path = tmp_path / name / f"seed_{seed}"
            write_seed(path, 0.6, seed=seed, more=DECAY.format(decay) + tap)
    comparison = compare([tmp_path])
    said = "compile.logit_weight_decay: 0.0005, there 0.0001"
    who = "afd_5e-4, afd_5e-4_again differ from vanilla and dml in"
    title, differences, table = tables.text(comparison).split("\n\n")
    assert title.startswith("cifar100, 60 training images")
    assert differences == f"{who} {said}."
    assert table.startswith("runs ")
    title, differences, table = tables.markdown(comparison).split("\n\n")
    assert differences == f"- {who} `{said}`."
    assert table.startswith("| runs ")
    lines = csv.DictReader(io.StringIO(tables.csv_text(comparison)))
    assert {
        (line["configuration"].rpartition("/")[2], line["differs_dml"])
        for line in lines
        if line["differs_dml"]
    } == {("afd_5e-4", said), ("afd_5e-4_again", said)}


def test_one_that_differs_alone_is_said_in_the_singular(tmp_path):
    write_seed(tmp_path / "vanilla" / "seed_0", 0.5, "vanilla", more=DECAY.format(1e-4))
    for seed in range(2):
        more = DECAY.format(seed)
        write_seed(tmp_path / "afd" / f"seed_{seed}", 0.5, seed=0, more=more)
    lines = tables.text(compare([tmp_path])).splitlines()[2:4]
    assert lines == [
        f"afd/seed_{seed} differs from vanilla in compile.logit_weight_decay: {seed}, "
        "there 0.0001."
        for seed in range(2)
    ]


def test_places_without_a_folder_in_common_are_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_seeds(tmp_path, "vanilla", [0.5], more=DECAY.format(1e-4))
    write_seeds(tmp_path, "afd", [0.5], more=DECAY.format(5e-4))
    text = tables.text(compare(["afd", tmp_path / "vanilla"]))
    assert f"\nafd differs from {tmp_path / 'vanilla'} in compile.logit" in text


def test_nothing_is_said_of_what_there_is_no_gain_over(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.5], more=DECAY.format(1e-4))
    write_seed(tmp_path / "afd" / "seed_1", 0.5, seed=1, more=DECAY.format(5e-4))
    assert "differs from" not in tables.text(compare([tmp_path]))


def test_what_a_stranger_wrote_moves_no_cursor_and_is_cut(tmp_path):
    write_seeds(tmp_path, "vanilla", [0.5])
    write_seeds(tmp_path, "afd", [0.5], more=f"train.new = '\x1b[2J{'x' * 200}'\n")
    text = tables.text(compare([tmp_path]))
    assert "train.new: '\\x1b[2Jxxx" in text
    assert "x..., there not set." in text
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize(
    ("own", "baseline"),
    [
        (online("afd"), online("vanilla")),
        (online("afd"), online("l1_kd")),
        # Vanilla has no feature step, whatever its file says of one.
        (online("afd", "feature/Adam.learning_rate = 1e-3"), online("vanilla")),
        (online("afd", "compile.placebo = True"), online("vanilla")),
        (online("afd", "OnlineDistiller.temperature = 4.0"), online("vanilla")),
        (online("afd", "OnlineDistiller.temperature = 4.0"), online("adversarial")),
        (online("l1", "discriminator/Adam.learning_rate = 1e-3"), online("afd")),
        (
            online(
                "l1",
                "train.method_options = {'optimizer': 'logit'}",
                "feature/Adam.learning_rate = 1e-3",
            ),
            online("l2", "train.method_options = {'optimizer': 'logit'}"),
        ),
        # Networks that one side does not have, and the source that vanilla cannot have.
        (offline("afd"), online("vanilla")),
        (offline("afd"), offline("kd")),
        # Another optimizer of a step that vanilla does not have.
        (
            online(
                "afd",
                "compile.feature_optimizer = @feature/SGD()",
                "feature/SGD.learning_rate = 0.1",
            ),
            online("vanilla"),
        ),
    ],
)
def test_what_a_method_has_for_itself_is_no_difference(own, baseline):
    own, baseline = finished(*own), finished(*baseline)
    assert unequal_settings(own, baseline) == {}
    assert unequal_settings(baseline, own) == {}


@pytest.mark.parametrize(
    ("own", "baseline", "expected"),
    [
        (
            online("afd", "logit/SGD.learning_rate = 0.2"),
            online("vanilla"),
            {"logit/SGD.learning_rate": ("0.2", "0.1")},
        ),
        (
            online("afd", "logit/StepDecay.boundaries = (0.3, 0.6)"),
            online("dml"),
            {"logit/StepDecay.boundaries": ("(0.3, 0.6)", "(0.5, 0.75)")},
        ),
        (
            online("afd", "compile.logit_schedule = None"),
            online("dml"),
            {"compile.logit_schedule": (None, "@logit/StepDecay()")},
        ),
        (
            online("afd", "compile.weight_decay = 'decoupled'"),
            online("dml"),
            {"compile.weight_decay": ("'decoupled'", "'coupled'")},
        ),
        (
            online("afd", "feature/Adam.learning_rate = 1e-3"),
            online("l1_kd"),
            {"feature/Adam.learning_rate": ("0.001", "2e-05")},
        ),
        (
            online("afd", "compile.placebo = True"),
            online("afd"),
            {"compile.placebo": ("True", "False")},
        ),
        (
            online("afd", "train.method_options = {'transfer_normalization': True}"),
            online("afd"),
            {"train.method_options": ("{'transfer_normalization': True}", None)},
        ),
        (
            online("afd", "train.method_options = {'discriminator_channels': (4,)}"),
            online("adversarial"),
            {"train.method_options": ("{'discriminator_channels': (4,)}", None)},
        ),
        (
            online("l1", "train.method_options = {'optimizer': 'logit'}"),
            online("l2_kd"),
            {"train.method_options": ("{'optimizer': 'logit'}", None)},
        ),
        (
            online("afd", "wrn28_4/wide_resnet.dropout = 0.3"),
            online("vanilla"),
            {"wrn28_4/wide_resnet.dropout": ("0.3", None)},
        ),
        (
            offline("afd"),
            offline("kd", "train.source = 'runs/another'"),
            {
                "train.source": (
                    "'runs/paper/resnet32_wrn28_4_vanilla/seed_0'",
                    "'runs/another'",
                )
            },
        ),
    ],
)
def test_what_both_sides_have_and_set_otherwise_is_a_difference(
    own, baseline, expected
):
    assert unequal_settings(finished(*own), finished(*baseline)) == expected
