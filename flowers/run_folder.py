"""Create and find run folders, and write files without overwriting any."""

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock


def run_folder(root: Path, *, resumed: str | None, rank: int) -> Path:
    """Return the folder of a run: the folder of the resumed ``last.ckpt``, otherwise a new one.

    Args:
        root: Parent of the run folders.
        resumed: Checkpoint to resume from; None for a new run. A checkpoint other than
            ``last.ckpt`` gets a new folder, because resuming would overwrite later epochs in its
            own.
        rank: Index of this process. Only process 0 makes a folder; Lightning broadcasts its path.
    """
    if resumed is not None and Path(resumed).name == "last.ckpt":
        run = Path(resumed).resolve().parents[1]
        if (run / "config.yaml").exists():
            return run
    return claim_run_folder(root) if rank == 0 else (root / "version_other").resolve()


def claim_run_folder(
    root: Path, name: str = "version", *, option: str = "`default_root_dir`"
) -> Path:
    """Make and return the next free ``root/<name>_<number>``.

    Args:
        root: Parent of the run folders.
        name: Prefix of the folder's name.
        option: Option that the error names.

    Raises:
        OSError: The folder cannot be made.
    """
    with _naming(option, root):
        root.mkdir(parents=True, exist_ok=True)
        suffixes = [path.name.removeprefix(f"{name}_") for path in root.glob(f"{name}_*")]
        number = max(map(int, filter(str.isdecimal, suffixes)), default=-1)
        while True:
            number += 1
            folder = root / f"{name}_{number}"
            with suppress(FileExistsError):
                folder.mkdir()
                return folder.resolve()


def discard_run_folder(run: Path) -> None:
    """Delete the folder of a run that failed before its first batch, and its parent if empty."""
    shutil.rmtree(run, ignore_errors=True)
    with suppress(OSError):
        run.parent.rmdir()


def last_checkpoint(root: Path) -> str | None:
    """Return the ``last.ckpt`` of a run folder, or the newest under ``lightning_logs``, or None.

    Args:
        root: A run folder, or the folder that holds ``lightning_logs``.
    """
    name = "checkpoints/last.ckpt"
    files = [*root.glob(name)] or root.glob(f"lightning_logs/*/{name}")
    newest = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
    return None if newest is None else str(newest)


def check_new(file: Path) -> None:
    """Check before any work that a new file can be written.

    Args:
        file: The file.

    Raises:
        FileExistsError: The file exists.
        FileNotFoundError: Its folder does not exist.
    """
    if file.exists():
        raise FileExistsError(f"`out` {file}: the file exists. Give another name, or move it.")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"`out` {file}: expected its folder to exist; make it first")


def publish(finished: Mapping[Path, Path]) -> list[Path]:
    """Give finished files and folders their final paths, overwriting none, and return these paths.

    If one of the paths exists, all get the next free number, as in ``report-2.html``, and a message
    is printed.

    Args:
        finished: The final path of each finished file or folder, on the same disk.
    """
    for number in count(1):
        names = list(finished.values())
        if number > 1:
            names = [name.with_stem(f"{name.stem}-{number}") for name in names]
        with suppress(FileExistsError), ExitStack() as undo:
            for file, name in zip(finished, names, strict=True):
                _publish(file, name, undo)
            undo.pop_all()
            break
    if number > 1:
        taken = ", ".join(name.name for name in finished.values() if name.exists())
        instead = ", ".join(name.name for name in names)
        print(f"Not overwritten: {taken}. Written instead: {instead}")
    return names


def _publish(file: Path, name: Path, undo: ExitStack) -> None:
    if file.is_dir():
        name.mkdir()
        undo.callback(name.rmdir)
        for inner in file.iterdir():
            _publish(inner, name / inner.name, undo)
        return
    try:
        os.link(file, name)  # fails if the name exists, as open("xb"); a rename would not
        undo.callback(name.unlink)
    except OSError:  # the name exists, or the disk has no links, such as exFAT
        with file.open("rb") as source, name.open("xb") as target:
            undo.callback(name.unlink)
            shutil.copyfileobj(source, target)


@contextmanager
def scratch_folder(parent: Path, *, option: str) -> Iterator[Path]:
    """Make a temporary folder for unfinished files, inside the folder where they will be published.

    Temporary folders that killed processes left behind are removed.

    Args:
        parent: Folder of the finished files, made if it is missing.
        option: Option that the error names.

    Raises:
        OSError: The files cannot be written.
    """
    with _naming(option, parent):
        parent.mkdir(parents=True, exist_ok=True)
        for lock in parent.glob(".unfinished-*/.lock"):
            with suppress(OSError):  # such as Timeout: the process still runs
                # A newer folder may have a running process that has not locked it yet.
                if time.time() - lock.parent.stat().st_mtime > 10:
                    with FileLock(lock, timeout=0):
                        shutil.rmtree(lock.parent)
        own = TemporaryDirectory(prefix=".unfinished-", dir=parent)
        with own as folder, FileLock(Path(folder, ".lock")):
            yield Path(folder)


@contextmanager
def _naming(option: str, folder: Path) -> Iterator[None]:
    """Add the option to the system's error about a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # not caused by the folder
        raise OSError(
            f"{option}: expected a folder that can be written, got {folder} "
            f"({error.strerror or error}). Give another with {option}."
        ) from error


def write_new(folder: Path, contents: Mapping[str, str | bytes], *, option: str) -> list[Path]:
    """Write all files or none, overwrite none, and return the new paths in the folder.

    If one of the names exists, all files get another name (see ``publish``).

    Args:
        folder: Folder of the files, made if it is missing.
        contents: Name and content of each file; a name may contain a folder: ``figures/loss.png``.
        option: Option that the error names.

    Raises:
        OSError: The files cannot be written.
    """
    with scratch_folder(folder, option=option) as scratch:
        for name, content in contents.items():
            data = content
            if isinstance(data, str):
                data = data.encode("utf-8", "surrogateescape")  # keeps names that are not UTF-8
            (scratch / name).parent.mkdir(exist_ok=True)
            (scratch / name).write_bytes(data)
        names = dict.fromkeys(Path(name).parts[0] for name in contents)
        return publish({scratch / name: folder / name for name in names})


def write_folder(folder: Path | None, contents: Mapping[str, str | bytes], *, name: str) -> Path:
    """Write files into a new folder, and return it.

    Args:
        folder: The new folder; if it exists, the next free name, such as ``out-2``, is used. None
            for ``lightning_logs/<name>_<number>``.
        contents: Name and content of each file.
        name: Prefix of a new folder's name.

    Raises:
        OSError: The files cannot be written.
    """
    if folder is None:
        folder = claim_run_folder(Path("lightning_logs"), name, option="`out`")
        write_new(folder, contents, option="`out`")
        return folder
    folder = folder.resolve()  # so that a path that ends in .. has a name
    inside = {f"{folder.name}/{file}": content for file, content in contents.items()}
    [folder] = write_new(folder.parent, inside, option="`out`")
    return folder
