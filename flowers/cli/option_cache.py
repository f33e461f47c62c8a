"""A cache of the names of all options, to report a misspelt one before torch is imported."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path


def known_options(command: str) -> list[str]:
    """Return the cached options of a command; none if they are unknown or may have changed."""
    with suppress(OSError, ValueError, LookupError, TypeError, RuntimeError):
        cached = json.loads(_file().read_text(encoding="utf-8"))
        options: list[str] = cached["options"][command]
        if cached["key"] == _key():
            return options
    return []


def remember_options(options: dict[str, list[str]]) -> None:
    """Cache the options of the commands, if the cache folder can be written.

    Args:
        options: For each command, all options that its parser accepts, with their dashes.
    """
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        partial = _file().with_suffix(f".{os.getpid()}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"key": _key(), "options": options}), encoding="utf-8")
        partial.replace(_file())


def _file() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "flowers" / "options.json"


def _key() -> list[str | int]:
    """Return the things that options depend on: this package, Lightning and jsonargparse."""
    folder = Path(__file__).parents[1]
    changes = sum(file.stat().st_mtime_ns for file in folder.rglob("*.py"))
    return [str(folder), changes, version("lightning"), version("jsonargparse")]
