"""Small files of finished runs, as training writes them."""

import ast
import json
from pathlib import Path

from afd_tf import methods
from afd_tf.runs.run_directory import SCHEMA

CONFIG = """load_data.per_class = {per_class}
train.batch_size = 128
train.dataset = 'cifar100'
train.epochs = {epochs}
train.method = '{method}'
"""


def results(*networks, accuracy=0.5, method="dml", source=False, **others):
    """Return the content of a `results.json`."""
    one = {"accuracy": accuracy}
    return {
        "schema": SCHEMA,
        "method": method,
        "parts": methods.get(method).parts(source or method == "kd"),
        "dataset": "cifar100",
        "seed": 0,
        "epoch": 60,
        "step": 2760,
        "networks": {n: {**one, "loss": 1.0, "parameters": 1} for n in networks},
        "mean": one,
        "ensemble": one,
        "replicas": 1,
        "data_sha256": "d" * 64,
        "weights_sha256": "e" * 64,
        "commit": None,
        "versions": {},
        **others,
    }


def write_record(folder, content, config="", rows="epoch,seconds\n"):
    """Write the small files of a finished run; return its folder."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "config.gin").write_text(config)
    (folder / "metrics.csv").write_text(rows)
    return folder


def write_seed(
    path,
    accuracy,
    method="afd",
    seed=0,
    *,
    epochs=60,
    per_class=60,
    more="",
    networks=("small", "large"),
    finished=True,
    **others,
):
    """Write a run whose second network is ten points better than its first."""
    config = CONFIG.format(epochs=epochs, per_class=per_class, method=method)
    content = results(
        method=method,
        seed=seed,
        epoch=epochs,
        networks={
            name: {
                "accuracy": accuracy + place / 10,
                "loss": 1.0,
                "parameters": 1000 + place,
            }
            for place, name in enumerate(networks)
        },
        mean={"accuracy": accuracy + 0.05},
        ensemble={"accuracy": accuracy + 0.2},
        source="train.source" in more,
        **others,
    )
    config += f"train.seed = {seed}\n{more}"
    write_record(path, content, config, "epoch\n1\n")
    if not finished:
        (path / "results.json").unlink()
    return path


def write_seeds(folder, method, accuracies, **options):
    """Write a run for each accuracy, of seeds from 0 on."""
    for seed, accuracy in enumerate(accuracies):
        path = folder / method / f"seed_{seed}"
        write_seed(path, accuracy, method, seed, **options)


def read(files, params=()):
    """Read `setting = value` lines, as a study is handed a function that does."""
    lines = [line for file in files for line in Path(file).read_text().splitlines()]
    pairs = [line.split(" = ") for line in [*lines, *params] if " = " in line]
    return {key: ast.literal_eval(value) for key, value in pairs}
