"""What is written overwrites nothing, and is there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowers.run_folder import write_folder, write_new

PAIR = ("a.csv", "figures/b.png")


@pytest.fixture(params=["links", "no links"])
def disk(request, monkeypatch):
    """A disk that has links, and one that has none, as exFAT."""

    def link(file, name):
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", link)


@contextmanager
def full_disk(size):
    """No file may grow beyond a size, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tree(folder):
    """Return the content of every file below a folder by its path."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_text() for file in files}


@pytest.mark.usefixtures("disk")
def test_results_get_one_number_that_is_free_for_all_of_them(tmp_path):
    for name in ("a.csv", "figures-2/mine.txt", "a-3.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "a-4.csv").symlink_to("nowhere")  # a name too
    before = tree(tmp_path)
    names = write_new(tmp_path, dict.fromkeys(PAIR, "new"), option="--out")
    assert names == [tmp_path / "a-5.csv", tmp_path / "figures-5"]
    assert tree(tmp_path) == before | {"a-5.csv": "new", "figures-5/b.png": "new"}


@pytest.mark.usefixtures("disk")
def test_writers_that_start_at_once_overwrite_nothing(tmp_path):
    texts = [str(number) for number in range(8)]
    start = threading.Barrier(len(texts))

    def write(text):
        start.wait()
        write_new(tmp_path, dict.fromkeys(PAIR, text), option="--out")

    threads = [threading.Thread(target=write, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = tree(tmp_path)
    tables = {
        name.removeprefix("a").removesuffix(".csv"): files[name]
        for name in files
        if name.startswith("a")
    }
    assert sorted(tables.values()) == texts
    assert len(files) == 2 * len(texts)
    for number, text in tables.items():  # the figures of a table have its number
        assert files[f"figures{number}/b.png"] == text


@pytest.mark.usefixtures("disk")
def test_a_full_disk_leaves_nothing_and_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    contents = {"a.csv": "short", "figures/b.png": b"longer than the disk has room for"}
    with (
        full_disk(16),
        pytest.raises(
            OSError, match=rf"--out: expected a folder .* got {tmp_path} \(File too large\)"
        ),
    ):
        write_new(tmp_path, contents, option="--out")
    assert tree(tmp_path) == {"a.csv": "mine"}
    assert len([*tmp_path.iterdir()]) == 1


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    for write in (write_new, write_folder):
        options = {"option": "--out"} if write is write_new else {"name": "audit"}
        with pytest.raises(
            OSError,
            match=r"--out: expected a folder that can be written, got .*file.*Give another",
        ):
            write(tmp_path / "file" / "below", {"a.csv": "new"}, **options)
    assert tree(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize("out", ["new", "new/below", "new/below/.."])
def test_a_new_folder_is_made_whole_and_one_made_meanwhile_stays(out, tmp_path, capsys):
    made = [write_folder(Path(out), {"a.csv": str(number)}, name="audit") for number in range(2)]
    assert [(folder / "a.csv").read_text() for folder in made] == ["0", "1"]
    assert all(folder.is_relative_to(tmp_path) for folder in made)
    assert f"Written instead: {made[1].name}" in capsys.readouterr().out
