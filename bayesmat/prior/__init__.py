"""p(x): distributions over molecular strings, as NumPyro distributions."""

from ._library import (
    fit_ngram as fit_ngram,
    load as load,
    names as names,
)
from ._ngram import NGram as NGram
