"""Packaging of afd_tf; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def _version() -> str:
    text = (ROOT / "afd_tf" / "_version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('afd_tf/_version.py has no line `__version__ = "..."`.')
    return match.group(1)


def _readme() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


REQUIREMENTS = [
    "absl-py>=2.1,<3",
    "gin-config>=0.5,<0.6",
    # Checksums of TFRecord files, which TensorFlow does not give to Python.
    "google-crc32c>=1.6,<2",
    # tensorflow-datasets 4.9.10 imports it without requiring it.
    "importlib_resources>=6.4,<8",
    "keras>=3.15,<3.16",
    "numpy>=2.1,<3",
    "pillow>=11.0,<14",
    "scikit-learn>=1.6,<2",
    # The t-tests of afd-results; scikit-learn brings it anyway.
    "scipy>=1.14,<2",
    # The TensorBoard callback needs it; TensorFlow 2.21 no longer pulls it in.
    "tensorboard>=2.20,<2.22",
    "tensorflow>=2.21,<2.22",
    "tensorflow-datasets>=4.9.10,<4.10",
]

LITERT = ["ai-edge-litert>=2.1,<3"]
ONNX = ["onnx>=1.18,<2", "onnxruntime>=1.22,<2", "tf2onnx>=1.17,<2"]

# Charts of afd-results, figures of afd-analyse.
PLOT = ["matplotlib>=3.9,<4"]

# The other side of tools/benchmark_step.py.
BENCH = ["torch>=2.9,<3"]

TEST = [
    "hypothesis>=6.130,<7",
    "pyright[nodejs]>=1.1.400,<1.2",
    "pytest>=9.0,<10",
    "pytest-xdist>=3.6,<4",
    "ruff>=0.17,<0.18",
    "setuptools>=77",
    "wheel>=0.45",
]

setup(
    name="afd_tf",
    version=_version(),
    description=(
        "Online knowledge distillation by feature-map-level adversarial training "
        "(AFD) for Keras 3 and TensorFlow."
    ),
    long_description=_readme(),
    long_description_content_type="text/markdown",
    author="The afd_tf authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    # The configurations live in gin/ at the root, where people edit them, and are
    # installed as afd_tf/configs. The folder must never be a package named `gin`.
    packages=[*find_packages(include=["afd_tf", "afd_tf.*"]), "afd_tf.configs"],
    # Outside of the package, so that it can be loaded first.
    py_modules=["afd_launcher"],
    package_dir={"afd_tf.configs": "gin"},
    package_data={"afd_tf": ["py.typed", "**/*.json"], "afd_tf.configs": ["**/*.gin"]},
    include_package_data=False,
    install_requires=REQUIREMENTS,
    extras_require={
        "bench": BENCH,
        "litert": LITERT,
        "onnx": ONNX,
        "plot": PLOT,
        "test": [*TEST, *LITERT, *ONNX, *PLOT],
        "dev": [*TEST, *LITERT, *ONNX, *PLOT, "pre-commit>=4.0,<5"],
    },
    entry_points={
        "console_scripts": [
            "afd-train = afd_launcher:train",
            "afd-evaluate = afd_launcher:evaluate",
            "afd-export = afd_launcher:export",
            "afd-results = afd_launcher:results",
            "afd-analyse = afd_launcher:analyse",
        ]
    },
    keywords=[
        "knowledge distillation",
        "online distillation",
        "adversarial training",
        "mutual learning",
        "keras",
        "tensorflow",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
