"""p(x): distributions over molecular strings, as NumPyro distributions."""

from ._files import (
    check_target as check_target,
    save as save,
)
from ._library import (
    fit_ngram as fit_ngram,
    load as load,
    names as names,
)
from ._neural import Neural as Neural
from ._ngram import NGram as NGram
from ._training import fit_neural as fit_neural
