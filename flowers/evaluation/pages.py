"""Pages that open from disk: one HTML file each, with everything in it."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure


def render_page(template: str, **values: Any) -> str:  # noqa: ANN401
    """Return a page; every value is escaped, so no name of a file can bring a script into it.

    Args:
        template: Name of a file in ``evaluation/templates``.
        values: What the template names.
    """
    environment = Environment(
        loader=PackageLoader("flowers.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def markdown_row(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table; what would break the table is escaped."""
    return (
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"
    )


def data_uri(content: bytes, kind: str) -> str:
    """Return an image as what an ``src`` holds, so that the page needs no other file.

    Args:
        content: The image file.
        kind: Its type, as ``jpeg`` or ``svg+xml``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def figure_svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file, which stays sharp at any size."""
    return figure_bytes(figure, "svg", dpi=figure.dpi)


def figure_bytes(figure: Figure, kind: str = "png", *, dpi: float = 150) -> bytes:
    """Return a figure as a file.

    Args:
        figure: The figure.
        kind: Format of the file, as Matplotlib names it: png, jpg, pdf, svg.
        dpi: Pixels per inch.
    """
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=dpi)
    return file.getvalue()
