"""The page put together: one file, nothing from the network, no script."""

from __future__ import annotations

from pathlib import Path

from ..design import DesignRun
from . import _sections as sections
from ._candidates import candidates
from ._style import CSS
from ._text import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def head(title: str) -> str:
    """What stands before the body of each page."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{CSS}</style></head>"""


def to_html(run: DesignRun) -> str:
    """The report as the text of a complete HTML document; the same run gives the same text."""
    version = run.versions.get("bayesmat")
    return f"""{head(run.title)}
<body>{sections.header(run)}
<main>{sections.warnings(run)}
{candidates(run)}
{sections.distributions(run)}
{sections.sampler(run)}
{sections.calibrations(run)}
{sections.details(run)}
</main>
<footer>Written by bayesmat{f" {escape(version)}" if version else ""}. Probabilities are those of a model given its
data; the molecules are proposals to be checked, not measured substances.</footer></body></html>
"""


def write(run: DesignRun, path: str | Path) -> Path:
    """Writes the report to one self-contained HTML file and returns where it is.

    Structures and figures are inline; the page loads nothing, runs no script, and can be sent by mail.

    Args:
        run: the finished design run.
        path: of the file; missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_html(run), encoding="utf-8", newline="\n")
    return path
