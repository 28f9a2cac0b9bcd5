"""One self-contained HTML page about a design run, for people who did not make it."""

from ._page import (
    to_html as to_html,
    write as write,
)
