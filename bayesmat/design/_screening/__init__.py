"""Screening: a library of any size against a design target."""

from ._merit import (
    HISTOGRAM_EDGES as HISTOGRAM_EDGES,
    Outlook as Outlook,
    enrichment_factor as enrichment_factor,
    expected_hits as expected_hits,
)
from ._screen import (
    Encoded as Encoded,
    as_library as as_library,
    encode_library as encode_library,
    screen as screen,
    screen_to as screen_to,
)
from ._shards import Counts as Counts
from ._sources import Drawn as Drawn, Files as Files, Listed as Listed, Source as Source
from ._top import Property as Property, Screened as Screened, rank as rank, write_picks as write_picks
from ._wanted import read_targets as read_targets
