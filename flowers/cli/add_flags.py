"""The options of the parameters that messages of the library name in backquotes."""

import logging
import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from flowers.cli.command_options import command_options


def add_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a message with options in place of the parameters that it names in backquotes.

    Args:
        text: The message.
        flags: The option of each parameter, such as ``--data.image_size`` of ``image_size``.
    """
    return re.sub(r"`([\w.]+)`", lambda name: flags.get(name[1], name[0]), text)


def add_flags_to_error(error: BaseException, flags: Mapping[str, str]) -> None:
    """Change the message of an error, and those of its causes, as ``add_flags`` does."""
    cause: BaseException | None = error
    while cause is not None:
        if cause.args and isinstance(message := cause.args[0], str):
            cause.args = (add_flags(message, flags), *cause.args[1:])
        cause = cause.__cause__


@cache  # once a process
def add_flags_to_log() -> None:
    """Change Lightning's log and warnings of this package from now on, as ``add_flags`` does."""
    flags = training_flags()
    format_other = warnings.formatwarning

    def change(record: logging.LogRecord) -> bool:
        record.msg = add_flags(str(record.msg), flags)
        return True

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if Path(filename).is_relative_to(Path(__file__).parents[1]):
            return f"Warning: {add_flags(str(message), flags)}\n"
        return format_other(message, category, filename, lineno, line)

    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(change)
    warnings.formatwarning = format_warning


@cache
def training_flags() -> dict[str, str]:
    """Return the option of each parameter of data, models, callbacks and trainer."""
    flags = {"TransferTask": "--model TransferTask"}
    for option in command_options("fit", module="training"):
        flags[option.rpartition(".")[2].removeprefix("--")] = option
        flags[option.removeprefix("--data.")] = option  # augment.…
    return flags
