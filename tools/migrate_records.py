"""Migrate the committed records to schema 2; run once, from the checkout's root."""

import ast
import json
from itertools import groupby
from pathlib import Path

from afd_tf import methods
from afd_tf.files import write_json, write_text
from afd_tf.runs import settings_text

RENAMED = {"compile.logit_optimizer": "compile.optimizer"}
REMOVED = ("compile.feature_every", "load_data.cache_dir")


def migrate_config(text):
    """Rename and remove settings; keep gin's order of keys in a section."""
    lines = []
    for line in text.splitlines():
        key, equals, value = line.partition(" = ")
        if key not in REMOVED:
            lines.append(RENAMED.get(key, key) + equals + value)
    migrated = []
    for plain, group in groupby(lines, lambda line: bool(line) and line[0] not in "# "):
        migrated += sorted(group, key=lambda s: s.partition(" = ")[0]) if plain else group
    return "\n".join(migrated) + "\n"


def data_key(settings):
    """Return what decides which images a run reads and evaluates."""
    return tuple(
        sorted(
            (key, value)
            for key, value in settings.items()
            if key in ("train.dataset", "train.validation")
            or (key.startswith("load_data.") and value != "None")
        )
    )


def main():
    runs = []
    for path in sorted(Path("studies").rglob("results.json")):
        config = path.with_name("config.gin")
        text = config.read_text(encoding="utf-8")
        write_text(config, migrate_config(text))
        results = json.loads(path.read_text(encoding="utf-8"))
        runs.append((path, results, settings_text.statements(config.read_text())))
    digests = {}
    for _, results, settings in runs:
        if "data_sha256" in results:
            digests.setdefault(data_key(settings), set()).add(results["data_sha256"])
    for path, results, settings in runs:
        options = ast.literal_eval(settings.get("train.method_options", "None")) or {}
        has_source = settings["train.source"] != "None"
        migrated = {}
        for key, value in results.items():
            if key == "weights_sha256":
                migrated["replicas"] = results.get("replicas", 1)
                if "data_sha256" in results:
                    migrated["data_sha256"] = results["data_sha256"]
                else:
                    [migrated["data_sha256"]] = digests[data_key(settings)]
                    migrated["data_sha256_inferred"] = True
            if key not in ("replicas", "data_sha256"):
                migrated[key] = 2 if key == "schema" else value
            if key == "method":
                migrated["parts"] = methods.get(value, **options).parts(has_source)
        write_json(path, migrated)


if __name__ == "__main__":
    main()
