import os

import pytest

from afd_tf import files

SHAPE = {"name": str, "sizes": [int], "parts": {str: {"loss": float}}, "more": (dict,)}
GOOD = '{"name": "a", "sizes": [1, 2], "parts": {"x": {"loss": 1}}, "more": {}, "z": 0}'


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text_comes_without_mark_and_with_one_kind_of_line_end(tmp_path):
    path = write(tmp_path / "a", b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert files.read_text(path) == "one\ntwo\nthree\n"


def test_what_is_expected_is_returned_with_what_is_besides(tmp_path):
    read = files.read_json(write(tmp_path / "a", GOOD), SHAPE)
    assert read["parts"] == {"x": {"loss": 1}}
    assert read["z"] == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5000, "no JSON"),
        (b"\xff", "byte 0 is not UTF-8"),
        ("[]", "it is [], not an object"),
        ("{}", "'name' is missing"),
        (GOOD.replace('"a"', "3"), "['name'] is 3, not a text"),
        (GOOD.replace("[1, 2]", "[1, 2.5]"), "['sizes'][1] is 2.5, not of type int"),
        (GOOD.replace("[1, 2]", "[true]"), "['sizes'][0] is true"),
        (GOOD.replace("[1, 2]", f"[{2**63}]"), "['sizes'][0] is 92233"),
        (GOOD.replace("[1, 2]", "{}"), "['sizes'] is {}, not a list"),
        (GOOD.replace('{"loss": 1}', "{}"), "in ['parts']['x'] 'loss' is missing"),
        (GOOD.replace('"loss": 1', '"loss": NaN'), "['loss'] is NaN"),
        (GOOD.replace('"loss": 1', '"loss": 1e999'), "['loss'] is Infinity"),
        (GOOD.replace('"more": {}', '"more": null'), "['more'] is null"),
    ],
)
def test_anything_else_is_named(tmp_path, content, reason):
    path = write(tmp_path / "a", content)
    with pytest.raises(ValueError, match=r"^Damaged notes '") as caught:
        files.read_json(path, SHAPE, "notes")
    assert repr(str(path)) in str(caught.value)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_may_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(2**40)  # of which nothing is on the disk
    for path, reason in (
        (tmp_path / "pipe", "no regular file"),
        ("/dev/zero", "no regular file"),
        (tmp_path, "no regular file"),
        (large, "more than 16777216 bytes"),
        (tmp_path / "missing", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(ValueError, match=reason):
            files.read_text(path)


def test_after_a_failure_the_folders_that_were_made_are_gone(tmp_path):
    (tmp_path / "there").mkdir()
    below = tmp_path / "there" / "a" / "b"
    with pytest.raises(FileNotFoundError), files.made_folder(below):
        os.rename(below / "missing", below / "other")
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with files.made_folder(tmp_path / "there" / "c"):
        pass
    assert (tmp_path / "there" / "c").is_dir()


def test_files_are_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    files.write_text(path, "old")

    def write_half():
        with files.replacing(path) as temporary:
            temporary.write_text("new")
            temporary.with_name("what a library leaves").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
    with files.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


def test_what_killed_processes_left_is_removed_and_links_are_not_followed(tmp_path):
    folder, target = tmp_path / "run", tmp_path / "target"
    (folder / ".tmp-1" / "epoch").mkdir(parents=True)
    target.mkdir()
    (target / "file").touch()
    (folder / ".tmp-2").symlink_to(target)
    (folder / "kept").touch()
    files.remove_temporaries(folder, tmp_path / "missing")
    assert os.listdir(folder) == ["kept"]
    assert os.listdir(target) == ["file"]


def test_room_is_made_until_it_is_enough_or_nothing_is_left():
    def written_when(left):
        def write():
            if len(files_there) > left:
                raise OSError(28, "No space left on device")
            return "written"

        return write

    files_there = [1, 2, 3]

    def free():
        return files_there and files_there.pop()

    assert files.with_room(written_when(1), free) == "written"
    assert files_there == [1]
    with pytest.raises(OSError, match="No space"):
        files.with_room(written_when(-1), free)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    for create in (True, False):
        with pytest.raises(OSError, match="symbolic"):
            files.held(tmp_path / "lock", create).__enter__()
    assert (tmp_path / "target").read_text() == "precious"


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with (
        pytest.warns(UserWarning, match="cannot be locked"),
        files.held(tmp_path / "lock"),
    ):
        pass
