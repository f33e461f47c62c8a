"""Errors of the command line in one line, with the nearest option."""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

_TASKS = ("CNNTask", "TransferTask")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a question that names the nearest of some words; empty where none is near."""
    nearest = get_close_matches(word, words, n=1)
    return f", did you mean {nearest[0]}?" if nearest else ""


class OneLineErrors:
    """For parsers of jsonargparse, whose errors begin with the whole usage."""

    exit_on_error: bool
    prog: str

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong in one line and exit.

        Raises:
            SystemExit: With status 2.
        """
        if not self.exit_on_error:  # the parser of a class: the command's own parser answers
            super().error(message, ex)  # type: ignore[misc]
        parser = getattr(ex, "subcommand_parser", None) or self
        options = [name for name in vars(parser)["_option_string_actions"] if name.startswith("--")]
        print(f"flowers: {explain(message, options, sys.argv)}", file=sys.stderr)
        print(f"All options: {parser.prog.replace(' [options]', '')} --help", file=sys.stderr)
        raise SystemExit(2) from ex


def explain(message: str, options: Iterable[str], words: Iterable[str]) -> str:
    """Return a message of jsonargparse in one line.

    Args:
        message: The message.
        options: The parser's options, for the nearest one.
        words: The command line, whose configurations may hold what is wrong.
    """
    if unknown := re.search(r"unrecognized arguments: (\S+)|does not accept option '(\S+)'", message):
        option = unknown[1] or f"--{unknown[2]}"
        return f"{_in_file(option, words)}{option}: no such option{did_you_mean(option.partition('=')[0], options)}"
    if unknown := re.search(r"Problem with given class_path '(\S+)':\s+Option '(\S+)' is not accepted", message):
        option = f"--model.{unknown[2]}"
        own = [f"--model.{name}" for name in _init_options(unknown[1])]
        return f"{option}: {unknown[1].rpartition('.')[2]} has no such option{did_you_mean(option, own)}"
    if unknown := re.search(r'Parser key "model".*Expected a dot import path string: (\w+)', message, re.DOTALL):
        tasks = f"{', '.join(_TASKS)} or the import path of a class"
        return f"--model {unknown[1]}: expected {tasks}{did_you_mean(unknown[1], _TASKS)}"
    text = " ".join(message.split())
    return re.sub(r'^Parser key "(\S+)":', r"--\1:", text)


def _in_file(option: str, words: Iterable[str]) -> str:
    """Return the configuration that holds an option, as the beginning of a message; empty where none does."""
    import yaml  # noqa: PLC0415 (--help must not wait for it)

    for word in words:
        file = Path(word.removeprefix("--config="))
        if file.suffix not in (".yaml", ".yml") or not file.is_file():
            continue
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
        for key in option.removeprefix("--").split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return f"{file}: "
    return ""


def _init_options(class_path: str) -> set[str]:
    """Return the parameters of a class and of those that it passes its keyword arguments to."""
    classes = resolve_name(class_path).__mro__
    return {name for cls in classes if "__init__" in vars(cls) for name in signature(cls.__init__).parameters}
