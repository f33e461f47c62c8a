"""The names of all options, kept from an earlier run: a misspelt one is answered before torch is imported."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path


def known_options(command: str) -> list[str]:
    """Return the options of a command; none where they are not known yet, or may have changed since.

    Args:
        command: Name of the command.
    """
    return _read().get(command, [])


def remember_options(options: dict[str, list[str]]) -> None:
    """Keep the options of some commands for the next start; without a folder to write into, do nothing.

    Args:
        options: For each command all options that its parser accepts, with their dashes.
    """
    text = json.dumps({"made_of": _made_of(), "options": _read() | options})
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        partial = _file().with_suffix(f".{os.getpid()}")
        _file().parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(_file())


def _file() -> Path:
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "flowers"
        / "options.json"
    )


def _read() -> dict[str, list[str]]:
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
        options: dict[str, list[str]] = kept["options"] if kept["made_of"] == _made_of() else {}
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):
        return {}
    return options


def _made_of() -> list[str | int]:
    """Return what the options depend on: the files of this package, and the versions of what makes the parser."""
    folder = Path(__file__).parents[1]
    changes = sum(file.stat().st_mtime_ns for file in folder.rglob("*.py"))
    return [str(folder), changes, version("lightning"), version("jsonargparse")]
