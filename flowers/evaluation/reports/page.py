"""A title and sections of tables, figures and images as one HTML page or as Markdown."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from flowers.evaluation.figures import figure_bytes


class Table(NamedTuple):
    """A table.

    Args:
        rows: Cells of each row.
        header: Names of the columns; empty for a table of names and values.
        text_columns: Number of leading columns with text; the others hold numbers, aligned right.
    """

    rows: Sequence[Sequence[object]]
    header: Sequence[str] = ()
    text_columns: int = 2


class Bar(NamedTuple):
    """A row of a bar chart.

    Args:
        label: Text before the bar.
        fraction: Length of the bar, in [0, 1].
        text: Text after the bar.
    """

    label: str
    fraction: float
    text: str


class Picture(NamedTuple):
    """An image with its caption.

    Args:
        jpeg: JPEG bytes; if they are empty, the page shows only the caption.
        caption: Text below the image.
        credit: Name of the photographer; empty if unknown.
        overlay: JPEG bytes of its Grad-CAM, shown in its place by a checkbox; empty for none.
        link: URL of the original image file; empty for none.
        row: Line that a checkbox adds to the ``Download`` of the page; empty for no checkbox.
    """

    jpeg: bytes
    caption: str = ""
    credit: str = ""
    overlay: bytes = b""
    link: str = ""
    row: str = ""


class Card(NamedTuple):
    """Images side by side, with a title above and a bar chart below."""

    title: str
    pictures: Sequence[Picture]
    bars: Sequence[Bar] = ()


def class_bars(class_names: Sequence[str], probs: Sequence[float]) -> list[Bar]:
    """Return the probabilities of an image as bars, the most probable class first.

    Args:
        class_names: Names of the K classes.
        probs: Probabilities ``(K,)``.
    """
    bars = [Bar(name, prob, f"{prob:.1%}") for name, prob in zip(class_names, probs, strict=True)]
    return sorted(bars, key=lambda bar: bar.fraction, reverse=True)


@dataclass(frozen=True)
class Section:
    """A section of a page; empty parts are left out.

    Args:
        title: Its heading.
        note: A paragraph below the heading; text in `backticks` is shown as code.
        table: A table.
        text: Preformatted text of several lines, folded on the page.
        bars: A bar chart.
        figures: Figures by their captions.
        cards: A gallery of images.
    """

    title: str = ""
    note: str = ""
    table: Table | None = None
    text: str = ""
    bars: Sequence[Bar] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    cards: Sequence[Card] = ()


@dataclass(frozen=True)
class Download:
    """A text file with the ``row`` of each ticked picture, which the browser saves.

    Args:
        name: Name of the file.
        header: First line of the file, including the line break.
        rows: Lines that are ticked when the page opens, including lines without a picture.
    """

    name: str
    header: str
    rows: Sequence[str] = ()


def page_html(title: str, sections: Sequence[Section], *, download: Download | None = None) -> str:
    """Return a self-contained page; all text is escaped, so that no file name can run a script.

    Args:
        title: Heading of the page.
        sections: Its sections.
        download: A file of the ticked pictures, with a button that saves it.
    """
    environment = Environment(
        loader=PackageLoader("flowers.evaluation.reports", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "svg": _svg}
    script = files("flowers.evaluation.reports").joinpath("page.js").read_text("utf-8")
    digest = _base64(hashlib.sha256(script.encode()).digest())  # the browser runs no other script
    return environment.get_template("page.html.j2").render(
        title=title, sections=sections, download=download, script=script, digest=digest
    )


def page_files(
    name: str, title: str, sections: Sequence[Section], numbers: Mapping[str, object]
) -> dict[str, str | bytes]:
    """Return a page as HTML and Markdown, and its numbers as JSON, by the names of the files.

    Args:
        name: Name of the files, without the suffix.
        title: Heading of the page.
        sections: Its sections.
        numbers: Content of the JSON file.
    """
    return {
        f"{name}.html": page_html(title, sections),
        f"{name}.json": json.dumps(numbers, indent=2, default=str),
        f"{name}.md": page_markdown(title, sections),
    }


def page_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the sections that have a table or a text as Markdown, without figures and images."""
    blocks = [f"# {title}"]
    for section in sections:
        if section.table is None and not section.text:
            continue
        if section.title:
            blocks.append(f"## {section.title}")
        if section.note:
            blocks.append(section.note)
        if section.table is not None:
            blocks.append(table_markdown(section.table))
        if section.text:
            blocks.append(f"```\n{section.text}\n```")
    return "\n\n".join(blocks) + "\n"


def table_markdown(table: Table) -> str:
    """Return a table as Markdown; pipes in cells are escaped, line breaks become spaces."""
    header = table.header or [""] * len(table.rows[0])
    lines = [_markdown_row(header), _markdown_row(["---"] * len(header))]
    lines += map(_markdown_row, table.rows)
    return "\n".join(lines)


def _markdown_row(cells: Iterable[object]) -> str:
    escaped = [" ".join(str(cell).split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _svg(figure: Figure) -> bytes:
    return figure_bytes(figure, "svg", dpi=figure.dpi)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
