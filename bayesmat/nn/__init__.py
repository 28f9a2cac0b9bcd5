"""φ(x): from a molecule on the device to features."""

from ._aromatic import (
    Aromaticity as Aromaticity,
    aromatic_atoms as aromatic_atoms,
    aromaticity as aromaticity,
)
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
from ._physicochemical import (
    PHYSICOCHEMICAL_NAMES as PHYSICOCHEMICAL_NAMES,
    physicochemical as physicochemical,
)
from ._rings import (
    Rings as Rings,
    rings as rings,
)
from ._training import (
    Epoch as Epoch,
    Schedule as Schedule,
    Stop as Stop,
    Trained as Trained,
    train as train,
)
