"""Runs that several tests read."""

import pytest
import small_runs


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return the directory of a finished run of one epoch; copy it to change it."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    small_runs.train(path, epochs=1)
    return path
