"""p(x | y in U): targets, the inverse problem as a model, and a whole design run."""

from ._conditions import (
    Condition as Condition,
    Filters as Filters,
    Molecule as Molecule,
)
from ._diversity import (
    Diversity as Diversity,
    diversity as diversity,
)
from ._filters import (
    Descriptor as Descriptor,
    Elements as Elements,
    HeavyAtoms as HeavyAtoms,
    HeteroatomChains as HeteroatomChains,
    LogP as LogP,
    MolecularWeight as MolecularWeight,
    PolarSurfaceArea as PolarSurfaceArea,
    RingSizes as RingSizes,
    RotatableBonds as RotatableBonds,
    Smarts as Smarts,
    SyntheticAccessibility as SyntheticAccessibility,
)
from ._inverse import Inverse as Inverse
from ._known import KnownCompounds as KnownCompounds
from ._outputs import write as write
from ._problem import (
    Problem as Problem,
    Sampler as Sampler,
    Sought as Sought,
    read_problem as read_problem,
)
from ._run import (
    Candidates as Candidates,
    DesignRun as DesignRun,
    SamplerSummary as SamplerSummary,
    TargetSummary as TargetSummary,
)
from ._scoring import (
    Score as Score,
    Tally as Tally,
    plain_errors as plain_errors,
)
from ._screening import (
    HISTOGRAM_EDGES as HISTOGRAM_EDGES,
    Counts as Counts,
    Drawn as Drawn,
    Encoded as Encoded,
    Files as Files,
    Listed as Listed,
    Outlook as Outlook,
    Screened as Screened,
    encode_library as encode_library,
    enrichment_factor as enrichment_factor,
    expected_hits as expected_hits,
    rank as rank,
    read_targets as read_targets,
    screen as screen,
    screen_to as screen_to,
    write_picks as write_picks,
)
from ._settings import FILTER_NAMES as FILTER_NAMES
from ._solve import (
    fit_forward as fit_forward,
    solve as solve,
    versions as versions,
)
from ._targets import (
    Above as Above,
    Below as Below,
    Interval as Interval,
    Near as Near,
)
from ._unstable import (
    UNSTABLE as UNSTABLE,
    NoUnstableGroups as NoUnstableGroups,
)
