"""Any data is loaded, or what is wrong is named: no traceback, no hang, no half."""

import functools
import io
import shutil
import tempfile
from pathlib import Path

import pytest
from fuzzing import accept, any_of, fuzz
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prepared_sets import examples, prepare

from afd_tf import data
from afd_tf.training import failures


@fuzz(50)
@given(any_of(data.load, ["download", "memory_limit"]))
def test_data_is_loaded_or_an_argument_is_named(arguments):
    accept(data.load, **{"name": "digits", "batch_size": 64, **arguments})


# Image folders


def encoded(kind, mode="RGB", size=(6, 6)):
    file = io.BytesIO()
    Image.new(mode, size, 7 if len(mode) == 1 else None).save(file, kind)
    return file.getvalue()


whole = [
    encoded("PNG"),
    encoded("JPEG"),
    encoded("GIF", "P"),
    encoded("BMP"),
    encoded("TIFF", "F"),
    encoded("WEBP"),
    encoded("PNG", "LA", (1, 40)),
]


@st.composite
def contents(draw):
    """Draw what is in a file: mostly an image, often with some bytes changed."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=30))
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([None, None, len(content) // 2]))])


file_names = st.one_of(
    st.sampled_from(["x.png", "a b.jpg", "-x.png", ".x.png", "ü.jpg", "x\n.gif", "x"]),
    st.binary(min_size=1, max_size=6)
    .filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
    .map(lambda name: name + b".png"),
)
entries = st.tuples(
    st.sampled_from(["a", "b", "train/a", "train/b", "test/a", "test/c", "train", ""]),
    file_names,
    st.one_of(contents(), st.sampled_from(["folder", "..", "/", "nothing", "a"])),
)


def put(root, folder, name, content):
    path = Path(root) / folder
    path.mkdir(parents=True, exist_ok=True)
    target = path / (
        name if isinstance(name, str) else name.decode(errors="surrogateescape")
    )
    if target.exists() or target.is_symlink():
        return
    if content == "folder":
        target.mkdir()
    elif isinstance(content, str):
        target.symlink_to(content)
    else:
        target.write_bytes(content)


def read(dataset):
    with failures.readable():  # as training does
        for _ in dataset:
            pass


def use(name, **options):
    """Load a set and read every image of it."""
    loaded = accept(data.load, name, 1, augmentation=False, **options)
    for dataset in loaded[:2] if loaded else ():
        accept(read, dataset)


@fuzz(60)
@given(
    st.lists(entries, max_size=6),
    st.booleans(),
    st.sampled_from([{}, {"memory_limit": 0}]),
)
def test_any_folder_is_loaded_or_what_is_wrong_is_named(drawn, complete, options):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "photos"
        root.mkdir()
        for split in ("train", "test") if complete else ():
            for name in "ab":
                put(root, f"{split}/{name}", "0.png", whole[0])
        for entry in drawn:
            put(root, *entry)
        use(str(root), image_size=4, **options)
        assert [p.name for p in Path(place).iterdir()] == ["photos"]


# Prepared sets


@functools.cache
def prepared():
    root = Path(tempfile.mkdtemp())
    shape = (4, 4, 3)
    prepare(root, "a_set", shape, train=examples(6, shape), test=examples(3, shape))
    return root


@pytest.fixture(scope="module", autouse=True)
def no_set_left():
    yield
    shutil.rmtree(prepared())


@pytest.mark.slow
@fuzz(30)
@given(
    st.sampled_from(
        ["features.json", "dataset_info.json", "label.labels.txt", "train", "test"]
    ),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.sampled_from([None, None, 0, 10, -1]),
    st.sampled_from([{}, {"memory_limit": 0}]),
)
def test_any_damage_to_a_prepared_set_is_named(name, changes, length, options):
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(prepared() / "a_set", Path(place) / "sets" / "a_set")
        (path,) = Path(place).rglob(f"*{name}*")
        content = bytearray(path.read_bytes())
        for index, byte in changes:
            content[index % len(content)] = byte
        path.write_bytes(content[:length])
        use("a_set", data_dir=Path(place) / "sets", **options)
