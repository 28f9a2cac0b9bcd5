"""D: measured properties with units and provenance, structures of real compounds, and splits; no download."""

from ._csv import from_csv as from_csv
from ._properties import load as load, names as names
from ._splits import random_split as random_split
from ._structures import Corpus as Corpus, corpus as corpus, structures as structures
from ._table import PropertyTable as PropertyTable
