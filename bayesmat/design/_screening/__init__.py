"""Screening: a library of any size against a design target."""

from ._screen import (
    Encoded as Encoded,
    as_library as as_library,
    encode_library as encode_library,
    screen as screen,
    screen_to as screen_to,
)
from ._shards import Counts as Counts
from ._sources import Drawn as Drawn, Files as Files, Listed as Listed, Source as Source
