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
from ._ensemble import Network as Network, Weights as Weights
from ._extractor import (
    GIVEN_NAMES as GIVEN_NAMES,
    Extractor as Extractor,
    extractor as extractor,
    given_features as given_features,
    read_extractor as read_extractor,
    save_network as save_network,
)
from ._features import (
    FINGERPRINT_BINS as FINGERPRINT_BINS,
    Features as Features,
    featurize as featurize,
    property_names as property_names,
)
from ._fingerprint import (
    count_fingerprint as count_fingerprint,
    environments as environments,
)
from ._library import (
    Entry as Entry,
    FeatureSet as FeatureSet,
    Library as Library,
    Pretrained as Pretrained,
    Stack as Stack,
    library as library,
)
from ._message import (
    Atoms as Atoms,
    MessageNetwork as MessageNetwork,
    atoms as atoms,
)
from ._physicochemical import (
    PHYSICOCHEMICAL_NAMES as PHYSICOCHEMICAL_NAMES,
    physicochemical as physicochemical,
)
from ._pretrain import (
    COUNTED as COUNTED,
    Featurizer as Featurizer,
    Measured as Measured,
    base_features as base_features,
    learned as learned,
    train_library as train_library,
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
