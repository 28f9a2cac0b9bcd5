"""D: measured properties with units and provenance, structures of real compounds, and splits; no download."""

from ._csv import from_csv as from_csv
from ._polymer_rules import MonomerClass as MonomerClass, PolymerRule as PolymerRule
from ._polymers import (
    PolymerCorpus as PolymerCorpus,
    corpus as corpus,
    polymer_rules as polymer_rules,
    polymerise as polymerise,
)
from ._properties import load as load, names as names
from ._rows import Row as Row, read_rows as read_rows, read_smi as read_smi, readable as readable
from ._splits import random_split as random_split
from ._structures import Corpus as Corpus, structures as structures
from ._table import PropertyTable as PropertyTable
