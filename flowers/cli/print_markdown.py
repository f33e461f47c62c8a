"""Markdown as text with aligned tables."""

import re

from rich.console import Console
from rich.markdown import Markdown


def print_markdown(text: str) -> None:
    """Print Markdown with aligned tables; on a terminal, they are fitted to its width."""
    # Escape markup, because names of classes and runs may contain it: <b>, a*b, __c__.
    text = re.sub(r"([*_<~`\[])", r"\\\1", text)
    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
        return
    console.width = 1000
    text = text.removeprefix("# ")  # the title would be centred
    with console.capture() as captured:
        console.print(Markdown(text))
    lines = map(str.rstrip, captured.get().splitlines())
    print(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n"))
