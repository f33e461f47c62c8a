"""Pages that open from disk: one HTML file each, with everything in it."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


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
