"""Where decoded images are held, and how they are written: on arrays made by hand."""

import shutil
import threading

import numpy as np
import pytest

from afd_tf.data import cache
from afd_tf.data.examples import OnDisk, checksums
from afd_tf.data.holding import Split, hold


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 12, 15])
def test_checksums_are_sums_of_words_and_see_every_single_change(size):
    random = np.random.RandomState(size)
    images = random.randint(0, 256, (4, 1, size, 1)).astype(np.uint8)
    width = max(w for w in (1, 2, 4, 8) if size % w == 0)
    for image, got in zip(images, checksums(images), strict=True):
        raw = image.tobytes()
        words = [raw[i : i + width] for i in range(0, size, width)]
        assert got == sum(int.from_bytes(w, "little") for w in words) % 2**64
        for place in range(size):
            changed = image.copy()
            changed[0, place] ^= 16
            assert checksums(changed[np.newaxis])[0] != got


def split_of(decode, count=6, where="the x of y"):
    def never():
        raise AssertionError("decoded on demand")

    return Split(where, count, (2, 2, 1), 3, decode, never, lambda: {"source": where})


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def few(count=6):
    yield np.full((count, 2, 2, 1), 7, np.uint8), np.zeros(count, np.int64)


def test_one_of_two_writers_waits_for_the_other(tmp_path):
    begun, go_on = threading.Event(), threading.Event()
    calls, results = [], []

    def decode():
        calls.append(1)
        begun.set()
        assert go_on.wait(30)
        yield from few()

    def work():
        results.append(cache.decoded_once(split_of(decode), str(tmp_path)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(calls) == 1
    assert [len(result) for result in results] == [6, 6]


def test_what_a_killed_process_left_is_removed(tmp_path):
    cache.decoded_once(split_of(few), str(tmp_path))
    (name,) = entries(tmp_path)
    shutil.rmtree(tmp_path / name)
    (tmp_path / f"{name}.partial-0123").mkdir()
    (tmp_path / f"{name}.partial-0123" / "images.npy").write_bytes(b"half")
    (tmp_path / "other.partial-1").mkdir()  # Perhaps being written.
    cache.decoded_once(split_of(few), str(tmp_path))
    assert entries(tmp_path) == sorted([name, "other.partial-1"])


@pytest.mark.parametrize("wrong", ["label", "few", "many", "error"])
def test_a_split_that_cannot_be_read_leaves_nothing(tmp_path, wrong):
    def decode():
        yield from few(3)
        if wrong == "error":
            raise ValueError("Corrupt image")
        count = {"label": 3, "few": 2, "many": 4}[wrong]
        yield (
            np.zeros((count, 2, 2, 1), np.uint8),
            np.full(count, 3 * (wrong == "label")),
        )

    message = {
        "label": "Invalid label in the x of y.*Received: 3 at example 3",
        "few": "Expected 6 examples. Received: 5",
        "many": "Expected 6 examples. Received: more",
        "error": "Corrupt image",
    }[wrong]
    for folder in (str(tmp_path), None):
        with pytest.raises(ValueError, match=message):
            hold(split_of(decode), 2**20, folder)
    assert entries(tmp_path) == []


def test_a_set_larger_than_the_free_space_is_refused_before_it_is_decoded(tmp_path):
    def decode():
        raise AssertionError("decoded")

    with pytest.raises(ValueError, match=r"`cache_dir`.*GiB decoded, and .*are free"):
        hold(split_of(decode, count=2**55), 0, str(tmp_path))
    assert entries(tmp_path) == []


def test_parts_of_parts_are_those_of_the_array(tmp_path):
    def decode():
        pixels = np.arange(6, dtype=np.uint8)[:, None, None, None]
        yield np.broadcast_to(pixels, (6, 2, 2, 1)).copy(), np.arange(6) % 3

    whole = hold(split_of(decode), 0, str(tmp_path))
    assert isinstance(whole, OnDisk)
    part = whole.subset([5, 0, 2, 3]).subset([3, 1, 0])
    assert part.gather(np.array([0, 1, 2, 0]))[:, 0, 0, 0].tolist() == [3, 0, 5, 3]
    assert part.labels.tolist() == [0, 0, 2]
    assert (len(part), part.image_shape) == (3, (2, 2, 1))
