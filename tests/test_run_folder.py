"""Run folders and results: nothing is overwritten, and all files are written or none."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from flowers.cli import training
from flowers.run_folder import (
    claim_run_folder,
    discard_run_folder,
    scratch_folder,
    write_folder,
    write_new,
)

PAIR = ("a.csv", "figures/b.png")


@pytest.fixture(params=["links", "no links"])
def disk(request, monkeypatch):
    """A disk with links, and one without, such as exFAT."""

    def link(file, name):
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", link)


@contextmanager
def full_disk(size):
    """Limit the size of every file, in bytes."""
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
def test_all_files_of_a_result_get_the_same_free_number(tmp_path):
    for name in ("a.csv", "figures-2/mine.txt", "a-3.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "a-4.csv").symlink_to("nowhere")  # a broken link is a taken name too
    before = tree(tmp_path)
    names = write_new(tmp_path, dict.fromkeys(PAIR, "new"), option="`out`")
    assert names == [tmp_path / "a-5.csv", tmp_path / "figures-5"]
    assert tree(tmp_path) == before | {"a-5.csv": "new", "figures-5/b.png": "new"}


@pytest.mark.usefixtures("disk")
def test_results_written_at_the_same_time_overwrite_nothing(tmp_path):
    texts = [str(number) for number in range(8)]
    start = threading.Barrier(len(texts))

    def write(text):
        start.wait()
        write_new(tmp_path, dict.fromkeys(PAIR, text), option="`out`")

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
def test_on_a_full_disk_nothing_is_written_and_the_folder_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    contents = {"a.csv": "short", "figures/b.png": b"longer than the disk has room for"}
    with (
        full_disk(16),
        pytest.raises(
            OSError, match=rf"`out`: expected a folder .* got {tmp_path} \(File too large\)"
        ),
    ):
        write_new(tmp_path, contents, option="`out`")
    assert tree(tmp_path) == {"a.csv": "mine"}
    assert len([*tmp_path.iterdir()]) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    for write in (write_new, write_folder):
        options = {"option": "`out`"} if write is write_new else {"name": "audit"}
        with pytest.raises(
            OSError,
            match=r"`out`: expected a folder that can be written, got .*file.*Give another",
        ):
            write(tmp_path / "file" / "below", {"a.csv": "new"}, **options)
    assert tree(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize("out", ["new", "new/below", "new/below/.."])
def test_a_second_result_folder_gets_a_number(out, tmp_path, capsys):
    made = [write_folder(Path(out), {"a.csv": str(number)}, name="audit") for number in range(2)]
    assert [(folder / "a.csv").read_text() for folder in made] == ["0", "1"]
    assert all(folder.is_relative_to(tmp_path) for folder in made)
    assert f"Written instead: {made[1].name}" in capsys.readouterr().out


def test_runs_that_start_at_the_same_time_get_different_folders(tmp_path):
    folders: list[Path] = []
    threads = []
    for _ in range(10):
        thread = threading.Thread(target=lambda: folders.append(claim_run_folder(tmp_path)))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    assert sorted(folder.name for folder in folders) == [f"version_{i}" for i in range(10)]


def test_ckpt_path_last_resumes_the_newest_run_or_starts_one(
    fit_small, load_last, synthetic, tmp_path, monkeypatch
):
    words = ["--ckpt_path", "last", "--data.root", str(synthetic), "--trainer.max_epochs"]
    run = fit_small(tmp_path, synthetic, *words, "1").trainer
    assert run.current_epoch == 1
    fit_small(tmp_path, synthetic, "--trainer.max_epochs", "1")  # another run, which saves later
    logs = tmp_path / "lightning_logs"
    fit_small(tmp_path, synthetic, *words, "2")
    assert load_last(logs / "version_0")["epoch"] == 0
    assert load_last(logs / "version_1")["epoch"] == 1
    monkeypatch.chdir(logs / "version_0")
    training.main(["fit", *words, "3"])
    assert load_last(logs / "version_0")["epoch"] == 2
    assert {path.name for path in logs.iterdir()} == {"version_0", "version_1"}


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
def test_resuming_the_last_checkpoint_adds_to_its_run_and_any_other_starts_a_run(
    load_last, one_epoch_run, tmp_path
):
    run = one_epoch_run
    last = str(run / "checkpoints" / "last.ckpt")
    config = (run / "config.yaml").read_text()
    training.main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2"])
    assert load_last(run)["epoch"] == 1
    assert (run / "config.yaml").read_text() == config
    assert yaml.safe_load((run / "config-2.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert not (run / "manifest-2.csv").exists()
    # Any other checkpoint starts a new run, so that the last epochs of the old one stay.
    words = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--trainer.max_epochs", "3"]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    training.main(["fit", *words])
    assert load_last(run)["epoch"] == 1
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert load_last(run.with_name("version_1"))["epoch"] == 2
    # A run without validation has no best epoch.
    training.main(["fit", *words, "--trainer.limit_val_batches", "0"])
    [file] = (run.with_name("version_2") / "checkpoints").iterdir()
    assert file.name == "last.ckpt"


def test_a_last_ckpt_outside_a_run_folder_starts_a_run(load_last, finished_run, tmp_path):
    copy = tmp_path / "home" / "user" / "last.ckpt"
    copy.parent.mkdir(parents=True)
    shutil.copy(finished_run / "checkpoints" / "last.ckpt", copy)
    words = ["--ckpt_path", str(copy), "--trainer.default_root_dir", str(tmp_path)]
    training.main(["fit", *words, "--trainer.max_epochs=5"])
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["user"]
    assert load_last(tmp_path / "lightning_logs" / "version_0")["epoch"] == 4


def test_a_discarded_run_folder_leaves_the_runs_before(tmp_path):
    runs = tmp_path / "lightning_logs"
    first = claim_run_folder(runs)
    second = claim_run_folder(runs)
    (second / "checkpoints").mkdir()
    discard_run_folder(second)
    assert [*runs.iterdir()] == [first]
    discard_run_folder(first)
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path):
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from flowers.run_folder import scratch_folder\n"
        "with scratch_folder(Path(), option='--out') as folder:\n"
        "    (folder / 'half.csv').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = tmp_path.glob(".unfinished-*/half.csv")
    with scratch_folder(tmp_path, option="`out`"):
        assert left.exists()  # a new folder may belong to a process that is starting
    os.utime(left.parent, (0, 0))
    with scratch_folder(tmp_path, option="`out`") as running:
        assert [*tmp_path.iterdir()] == [running]
        write_new(tmp_path, {"a.csv": "new"}, option="`out`")
        assert {*tmp_path.iterdir()} == {running, tmp_path / "a.csv"}
    assert [*tmp_path.iterdir()] == [tmp_path / "a.csv"]
