"""The peers of the benchmarks: a peer that is wrong would make us look better than we are."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from peers.genetic import crossover, mutate
from peers.oracle import AdditiveOracle
from peers.strings import CLOSE, NGram, Reader, tokenize, write

MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "C1CC2CCC1CC2",
    "N#CC(C)(C)/N=N/C",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "C1CCC2(CC1)OCCO2",
]


@pytest.mark.parametrize("smiles", MOLECULES)
def test_tokens_say_the_same_molecule(smiles):
    assert Chem.CanonSmiles(write(tokenize(smiles))) == Chem.CanonSmiles(smiles)


def test_a_closed_branch_is_contracted_to_its_first_atom():
    reader = Reader()
    for token in tokenize("CC(=O)")[:-1]:
        reader.push(token)
    before = list(reader.context)
    assert before[-3:] == ["(", "=O", CLOSE]
    longer = Reader()
    for token in tokenize("CC(=OCC(N)C)")[:-1]:
        longer.push(token)
    assert longer.context == before and longer.where == (False, 0)


def test_the_ngram_writes_what_it_has_seen():
    ngram, rng = NGram(["CCCO", "CCCO"]), random.Random(0)
    assert {ngram.grow(["C"], rng) for _ in range(50)} == {"CCCO"}
    assert ngram.grow([], rng) == "CCCO"


def test_the_oracle_recovers_an_additive_property_and_is_silent_elsewhere():
    smiles = [text for text in MOLECULES + ["CCO", "CCN", "c1ccccc1", "CCCC", "CC=O"] for _ in range(5)]
    weight = np.array([sum(atom.GetMass() for atom in Chem.MolFromSmiles(text).GetAtoms()) for text in smiles])
    oracle = AdditiveOracle(smiles, weight, penalty=1e-8)
    np.testing.assert_allclose(oracle(smiles), weight, atol=1e-3)
    assert np.isnan(oracle(["CC[SiH3]", "not a molecule"])).all()


def test_genetic_operators_give_molecules():
    rng = random.Random(0)
    parents = [Chem.MolFromSmiles(text) for text in MOLECULES]
    children = [crossover(*rng.sample(parents, 2), rng) for _ in range(40)]
    mutants = [mutate(rng.choice(parents), rng) for _ in range(40)]
    made = [Chem.MolToSmiles(molecule) for molecule in (*children, *mutants) if molecule is not None]
    assert len(set(made) - set(map(Chem.CanonSmiles, MOLECULES))) > 30
    assert all(Chem.MolFromSmiles(text) is not None and "." not in text and "*" not in text for text in made)
