"""φ(x): from a molecule on the device to features."""

from ._descriptors import (
    DESCRIPTOR_NAMES as DESCRIPTOR_NAMES,
    descriptors as descriptors,
)
from ._features import (
    FINGERPRINT_BINS as FINGERPRINT_BINS,
    Features as Features,
    featurize as featurize,
)
from ._fingerprint import (
    count_fingerprint as count_fingerprint,
    environments as environments,
)
