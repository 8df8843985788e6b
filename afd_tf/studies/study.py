"""A study's design, the values it chooses on held-out images, and its runs.

A design says which cells are run with how many seeds, and what is tuned, if anything
is. `chosen.json` is what is chosen so far: each cell is added when its tuning runs are
finished, and what is in it is read from then on, never chosen again. No tuning run
reads the test set.
"""

from pathlib import Path

from afd_tf.errors import InvalidValue, invalid
from afd_tf.files import read_json, write_json
from afd_tf.results.comparison import BASELINES
from afd_tf.studies.runs import Cell, Run

_MOST_VALUES = 3
# What design.json must have; a cell may have `tuned_as`, and the design `over`,
# `contrasts`, `exploratory` and `tuning`. Without `tuning` every cell is what its file
# says.
_DESIGN = {"cells": {str: {"gin_file": str, "seeds": int}}}
_TUNING = {
    "validation": float,
    "seed": int,
    "cells": {str: {"parameters": [str], "values": [float]}},
}
_CHOSEN = {str: {"parameters": [str], "value": float, "validation": [{"value": float}]}}
_NO_TUNING = {"validation": 0.0, "seed": 0, "cells": {}}


class Study:
    """A study's design and what has been chosen so far.

    Args:
        folder: path of the study, with `design.json`; small files of every run are
            kept in it, and what is chosen.
        output: path of the folder of all runs.
        read: callable, see `afd_tf.studies.runs.Cell`.
        epochs: int in place of the protocol's, to try a study out; or None. With it
            nothing is written to `folder` or taken from what is kept in it: what is
            chosen is in `output`, beside the runs.

    Raises:
        InvalidValue: if there is no design, it is damaged or names cells that are not
            there, or its tuning is not the same for all.

    Attributes:
        tuning: dict, what the design says of tuning; no cells if it has none.
        over: list of str, the cells that gains are reported over.
        contrasts: list of (cell, baseline), the questions asked in advance; see
            `afd_tf.studies.contrasts`.
        exploratory: list of (cell, baseline), those of less weight.
    """

    def __init__(self, folder, output, read, epochs=None):
        self._design_path = Path(folder) / "design.json"
        self._output, self._read = Path(output), read
        if not self._design_path.is_file():
            raise invalid(
                "study", "the folder of a study, with a design.json", str(folder)
            )
        design = self._read_design(_DESIGN)
        if "tuning" in design:
            self._read_design({"tuning": _TUNING})
        self._cells, self.tuning = design["cells"], design.get("tuning", _NO_TUNING)
        self.over = design.get("over", BASELINES)
        self.contrasts, self.exploratory = (
            self._pairs(design, key) for key in ("contrasts", "exploratory")
        )
        self._params = () if epochs is None else (f"train.epochs = {epochs}",)
        # Runs of another number of epochs must not pass for the study's own.
        self._record = Path(folder) if epochs is None else None
        self._chosen_path = (self._record or self._output) / "chosen.json"
        self._check()

    def _read_design(self, shape):
        return read_json(self._design_path, shape, "design of a study")

    def _invalid(self, part, expected, received):
        return InvalidValue(
            f"Invalid {part} in {self._design_path}. Expected {expected}. "
            f"Received: {received}."
        )

    def _check(self):
        if not self._cells:
            raise self._invalid("`cells`", "at least one", "none")
        budgets = {name: len(t["values"]) for name, t in self.tuning["cells"].items()}
        if len(set(budgets.values())) > 1 or max([0, *budgets.values()]) > _MOST_VALUES:
            expected = f"as many values for every cell, at most {_MOST_VALUES}"
            raise self._invalid("tuning", expected, budgets)
        for name in self._cells:
            if self._tuned_as(name) not in {None, *budgets}:
                raise self._invalid(
                    "cell",
                    "one that is tuned, or `tuned_as` one that is, or null for what "
                    "its file says",
                    repr(name),
                )
        for name in self.over:
            if name not in {*self._cells, *BASELINES}:
                expected = f"cells of the study, {', '.join(self._cells)}"
                raise self._invalid("`over`", expected, repr(name))

    def _pairs(self, design, key):
        if key in design:
            self._read_design({key: [[str]]})
        for pair in design.get(key, ()):
            two = len(pair) == len(set(pair)) == 2
            if not two or not set(pair) <= set(self._cells):
                expected = "two different cells of the study in each"
                raise self._invalid(f"`{key}`", expected, repr(pair))
        return [tuple(pair) for pair in design.get(key, ())]

    def _tuned_as(self, name):
        own = name if self.tuning["cells"] else None
        return self._cells[name].get("tuned_as", own)

    def _run(self, name, seed, params, run_name=None):
        files = (self._cells[name]["gin_file"],)
        params = (*self._params, *params)
        cell = Cell(run_name or name, files, self._read, params)
        return Run(cell, seed, self._output, self._record)

    def tuning_runs(self):
        """List the runs that values are chosen by; evaluated on held-out images."""
        held_out = f"train.validation = {self.tuning['validation']}"
        return [
            self._run(
                name,
                self.tuning["seed"],
                (held_out, *_params(tuned, value)),
                f"tuning/{name}_{value:g}",
            )
            for name, tuned in self.tuning["cells"].items()
            for value in tuned["values"]
        ]

    def choose(self, write=True):
        """Choose each cell's value by its tuning runs, and write that down.

        The value with the best mean accuracy of the networks after the last epoch; of
        equals the first listed.

        Args:
            write: bool, False to find out only.

        Returns:
            dict of cell to {"parameters", "value", "validation": what each value came
            to}; only of cells whose tuning runs are all finished.

        Raises:
            InvalidValue: if what was chosen before was chosen from other values, or a
                file is damaged.
        """
        earlier = {}
        if self._chosen_path.is_file():
            earlier = read_json(self._chosen_path, _CHOSEN, "choice of a study")
        runs = iter(self.tuning_runs())
        chosen = {}
        for name, tuned in self.tuning["cells"].items():
            own = {value: next(runs) for value in tuned["values"]}
            if name in earlier:
                self._check_choice(name, earlier[name], tuned)
                chosen[name] = earlier[name]
            elif all(run.finished for run in own.values()):
                chosen[name] = _choice(tuned, own)
        if write and chosen != earlier:
            write_json(self._chosen_path, chosen)
        return chosen

    def _check_choice(self, name, choice, tuned):
        values = [entry["value"] for entry in choice["validation"]]
        if (choice["parameters"], values) != (tuned["parameters"], tuned["values"]):
            raise InvalidValue(
                f"Invalid choice for {name!r} in {self._chosen_path}. Expected one "
                f"from {tuned['values']}, as the design has it. Received: {values}. "
                "Delete it to choose again."
            )

    def final_runs(self, chosen):
        """List the runs that are reported, first seeds first.

        Args:
            chosen: what `choose` returned; cells without a choice are left out.
        """
        most = max(cell["seeds"] for cell in self._cells.values())
        return [
            self._run(name, seed, params)
            for seed in range(most)
            for name, cell in self._cells.items()
            if seed < cell["seeds"]
            and (params := self._chosen_params(name, chosen)) is not None
        ]

    def _chosen_params(self, name, chosen):
        """Return the statements of what is chosen for a cell, None without a choice."""
        tuned_as = self._tuned_as(name)
        if tuned_as is None:
            return ()
        choice = chosen.get(tuned_as)
        return choice and _params(choice, choice["value"])

    def without_choice(self, chosen):
        """List the cells that cannot be run, as a tuning run of theirs has failed."""
        done = {None, *chosen}
        return [name for name in self._cells if self._tuned_as(name) not in done]


def _params(tuned, value):
    return [f"{parameter} = {value!r}" for parameter in tuned["parameters"]]


def _choice(tuned, runs):
    validation = []
    for value, run in runs.items():
        results = run.results()
        networks = {n: v["accuracy"] for n, v in results["networks"].items()}
        validation.append(
            {"value": value, "mean": results["mean"]["accuracy"], "networks": networks}
        )
    best = max(validation, key=lambda entry: entry["mean"])
    return {
        "parameters": tuned["parameters"],
        "value": best["value"],
        "validation": validation,
    }
