"""What is installed: the wheel's contents, and configurations found from anywhere."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ["afd_tf", "gin", "afd_launcher.py", "setup.py", "pyproject.toml"]
SHIPPED += ["MANIFEST.in", "LICENSE"]


def run_python(code, cwd, path):
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                source / name,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        else:
            shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files(folder, pattern):
    return {str(p.relative_to(folder)) for p in folder.rglob(pattern)}


def test_wheel_holds_every_module_and_configuration(unpacked):
    installed = unpacked / "afd_tf"

    assert files(installed, "*.py") == files(ROOT / "afd_tf", "*.py")
    assert files(installed / "configs", "*.gin") == files(ROOT / "gin", "*.gin")
    assert "afd.gin" in files(installed / "configs", "*.gin")
    assert (installed / "py.typed").exists()


def test_wheel_installs_the_package_and_its_launcher_alone(unpacked):
    (information,) = unpacked.glob("*.dist-info")

    names = {p.name for p in unpacked.iterdir()}
    assert names == {"afd_tf", "afd_launcher.py", information.name}
    assert not list(unpacked.rglob("gin"))
    assert files(information, "LICENSE")


def test_wheel_declares_the_commands(unpacked):
    (entry_points,) = unpacked.glob("*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser()
    parser.read(entry_points)

    names = run_python("import afd_launcher; print(*afd_launcher.COMMANDS)", ".", ROOT)
    targets = {f"afd-{name}": f"afd_launcher:{name}" for name in names.split()}
    assert dict(parser["console_scripts"]) == targets
    for name in names.split():
        assert (unpacked / "afd_tf" / "cli" / f"{name}.py").is_file()


def test_wheel_s_commands_run_outside_of_a_checkout(unpacked, tmp_path):
    code = "import sys, afd_launcher; sys.argv = ['afd-train', '--help']; "
    text = run_python(f"{code}afd_launcher.train()", tmp_path, unpacked)

    assert text.startswith("usage: afd-train")


def test_wheel_requires_what_no_other_requirement_brings(unpacked):
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    required = re.findall(
        r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata.read_text(), re.M
    )
    # TensorFlow no longer brings the first; tensorflow-datasets imports the second.
    assert {"tensorboard", "importlib_resources"} <= set(required)


def test_folder_of_configurations_does_not_shadow_the_gin_package(tmp_path):
    assert not list((ROOT / "gin").rglob("*.py"))
    code = "import gin; print(gin.configurable.__name__)"

    # Both ways in which the checkout comes first on the path.
    assert run_python(code, tmp_path, ROOT) == "configurable"
    assert run_python(code, ROOT, ".") == "configurable"


@pytest.mark.parametrize("where", ["wheel", "checkout"])
def test_configurations_are_found_from_any_folder(where, unpacked, tmp_path):
    path = unpacked if where == "wheel" else ROOT
    code = (
        "import afd_launcher; from afd_tf import config; "
        "print(config.find('pairings/digits_resnet8_resnet20.gin'))"
    )

    found = Path(run_python(code, tmp_path, path).splitlines()[-1])

    inside = unpacked / "afd_tf" / "configs" if where == "wheel" else ROOT / "gin"
    assert found.is_file()
    assert found.is_relative_to(inside)
