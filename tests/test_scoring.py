"""A Python function of SMILES as a factor of a model."""

from __future__ import annotations

import math
import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

from bayesmat import BayesmatError, chem, data, design, prior, smc
from bayesmat.design import plain_errors
from bayesmat.design._scoring import PATIENCE

ALPHABET = chem.Alphabet.organic(length=24)
IS_CARBON = np.zeros(ALPHABET.num_tokens)
IS_CARBON[1 : len(ALPHABET.atoms) + 1] = [atom.element == "C" for atom in ALPHABET.atoms]


class Counting:
    """Counts carbons, aromatic ones too, and remembers what it was asked."""

    def __init__(self):
        self.asked: list[str] = []

    def __call__(self, smiles):
        self.asked += smiles
        return [text.upper().count("C") - text.count("Cl") for text in smiles]


@pytest.fixture(scope="module")
def tokens():
    """Molecules of the corpus, each as two strings, without chlorine and the like."""
    corpus = [s for s in data.corpus("organic").smiles if set(s) <= set("CcONn123()=#")][::150]
    return np.concatenate([chem.encode(corpus, ALPHABET, seed).tokens for seed in (None, 5)])


def of_tokens(x):
    """The same count on the device."""
    return jnp.asarray(IS_CARBON)[x].sum(-1)


def test_the_same_number_eagerly_jitted_and_mapped(tokens) -> None:
    function = Counting()
    score = design.Score(function, ALPHABET)
    expected = np.asarray(of_tokens(tokens))
    assert score(tokens[0]).shape == () and score(tokens[0]).dtype == jnp.result_type(float)
    assert [float(score(x)) for x in tokens[:5]] == list(expected[:5])
    assert float(jax.jit(score)(tokens[0])) == expected[0]
    np.testing.assert_array_equal(jax.jit(jax.vmap(score))(tokens), expected)
    nested = jax.jit(jax.vmap(jax.vmap(score)))(tokens[:12].reshape(3, 4, -1))
    np.testing.assert_array_equal(nested.ravel(), expected[:12])
    in_chunks = jax.jit(lambda x: jax.lax.map(score, x, batch_size=16))(tokens)
    np.testing.assert_array_equal(in_chunks, expected)
    molecules = set(chem.canonicalize([chem.to_smiles(x, ALPHABET) for x in tokens]).smiles)
    assert sorted(function.asked) == sorted(molecules)  # each once, in canonical form, whichever string came first
    tally = score.tally
    assert tally.scored == len(molecules) and tally.asked == 2 + 5 + 1 + 12 + 2 * len(tokens)
    assert tally.from_cache == tally.asked - tally.scored and not score.warnings()


def test_double_precision(tokens) -> None:
    with jax.enable_x64(True):
        value = jax.jit(design.Score(lambda s: 1 / 3, ALPHABET, vectorized=False))(tokens[0])
        assert value.dtype == jnp.float64 and float(value) == 1 / 3


@pytest.mark.slow
def test_a_factor_in_the_sampler_equals_the_same_function_on_the_device() -> None:
    """Same key, same particles and evidence; and the function is asked once about each molecule."""
    alphabet = chem.Alphabet((chem.AtomType("C", 0, 4), chem.AtomType("O", 0, 2)), length=8, max_depth=1, max_rings=1)
    p_x = prior.fit_ngram(["CCO", "CCCO", "CC(C)O", "C=CC", "C1CC1", "CC(=O)OC"], alphabet, order=3)
    function = Counting()
    score = design.Score(function, alphabet, name="carbons")
    runs = []
    for factor in (score, lambda x: (x == 1).sum()):

        def problem(factor=factor) -> None:
            x = numpyro.sample("molecule", p_x)
            numpyro.factor("size", 0.5 * factor(x))

        sampler = smc.SMC(problem, num_particles=128, num_moves=2, progress_bar=False)
        sampler.run(jax.random.key(2))
        runs.append((np.asarray(sampler.get_samples()["molecule"]), sampler.log_evidence))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-6)
    assert len(set(function.asked)) == len(function.asked) == score.tally.scored > 20
    assert score.tally.asked > 2 * score.tally.scored
    report = score.report(run_seconds=2 * score.tally.seconds)
    assert "carbons" in report and "50.0% of the run" in report
    assert score.share(2 * score.tally.seconds) == pytest.approx(0.5)
    assert 0 < score.tally.function_seconds < score.tally.seconds


def test_bad_molecules_are_set_aside_and_counted(tokens) -> None:
    smiles = chem.canonicalize([chem.to_smiles(x, ALPHABET) for x in tokens]).smiles
    kinds = {text: index for index, text in enumerate(dict.fromkeys(smiles))}
    bad = {0: None, 1: math.nan, 2: math.inf, 3: "high", 4: -math.inf}

    def fails(texts):
        if any(kinds[text] in (5, 6) for text in texts):
            raise OSError("no conformer")
        return [bad.get(kinds[text], 1.5) for text in texts]

    score = design.Score(fails, ALPHABET, name="energy")
    values = np.asarray(jax.jit(jax.vmap(score))(tokens))
    expected = np.where(np.isin([kinds[text] for text in smiles], range(7)), -np.inf, 1.5)
    np.testing.assert_array_equal(values, expected)
    assert score.tally.set_aside == {
        "returned None": 1,
        "returned nan": 1,
        "returned inf": 1,
        "returned str": 1,
        "OSError: no conformer": 2,
    }
    assert score.tally.calls == 1 + len(kinds)  # the list, then each by itself
    (warning,) = score.warnings()
    assert "6 molecules have no 'energy'" in warning and "2 × OSError: no conformer (such as " in warning
    assert warning in score.report()
    one_by_one = design.Score(lambda text: fails([text])[0], ALPHABET, vectorized=False)
    np.testing.assert_array_equal(jax.jit(jax.vmap(one_by_one))(tokens), expected)
    assert one_by_one.tally.set_aside == score.tally.set_aside and one_by_one.tally.calls == len(kinds)


def test_strings_that_are_no_molecules_are_set_aside() -> None:
    score = design.Score(len, ALPHABET, vectorized=False)
    rows = np.zeros((3, ALPHABET.length), np.int32)
    rows[1, :2] = ALPHABET.close_token, 1
    rows[2, :2] = 1, ALPHABET.first_ring_close_token
    np.testing.assert_array_equal(jax.vmap(score)(rows), [-np.inf] * 3)
    assert score.tally.set_aside.total() == 3 and score.tally.scored == 0
    assert all("not a molecule" in reason for reason in score.tally.set_aside)


@pytest.mark.parametrize("result", [[1.0], 1.0, np.ones((4, 1)), "text", None, (1, 2, 3, 4, 5)])
def test_a_wrong_number_of_values_is_an_error(tokens, result) -> None:
    score = design.Score(lambda texts: result, ALPHABET, name="wrong")
    with pytest.raises(BayesmatError, match="'wrong' got a list of 4 SMILES and returned") as caught, plain_errors():
        jax.block_until_ready(jax.jit(jax.vmap(score))(tokens[:4]))
    assert "4 numbers" in str(caught.value)
    with pytest.raises(jax.errors.JaxRuntimeError, match="'wrong' got a list of 4 SMILES"):  # without the context
        jax.block_until_ready(jax.jit(jax.vmap(score))(tokens[:4]))


def test_a_function_that_always_raises_is_an_error(tokens) -> None:
    asked = []

    def broken(text):
        asked.append(text)
        return text.undefined

    score = design.Score(broken, ALPHABET)
    score_one = design.Score(broken, ALPHABET, name="one", vectorized=False)
    assert len(tokens) // 2 > PATIENCE
    with pytest.raises(BayesmatError, match=f"each of its first {PATIENCE} molecules.*'list' object"), plain_errors():
        jax.block_until_ready(jax.jit(jax.vmap(score))(tokens))
    asked.clear()
    with pytest.raises(BayesmatError, match="AttributeError: 'str' object has no attribute"), plain_errors():
        jax.block_until_ready(jax.jit(jax.vmap(score_one))(tokens))
    assert len(asked) == PATIENCE


def test_ctrl_c_is_not_taken_for_a_bad_molecule(tokens) -> None:
    def interrupted(texts):
        raise KeyboardInterrupt

    score = design.Score(interrupted, ALPHABET)
    with pytest.raises(KeyboardInterrupt), plain_errors():
        jax.block_until_ready(jax.jit(jax.vmap(score))(tokens[:4]))
    assert not score.tally.set_aside


def test_the_cache_is_bounded_and_forgets_the_oldest(tokens) -> None:
    function = Counting()
    score = design.Score(function, ALPHABET, max_cached=2)
    a, b, c = tokens[:3]
    for x in (a, b, a, c, a, b):  # b is forgotten for c, for a was asked for after it
        score(x)
    assert score.tally.scored == 4 and function.asked[3] == function.asked[1]
    np.testing.assert_array_equal(jax.vmap(score)(tokens), of_tokens(tokens))  # a batch larger than the cache
    with pytest.raises(BayesmatError, match="positive"):
        design.Score(function, ALPHABET, max_cached=0)


def test_threads_share_one_score(tokens) -> None:
    function = Counting()
    score = design.Score(function, ALPHABET)
    mapped = jax.jit(jax.vmap(score))
    threads = [threading.Thread(target=lambda: jax.block_until_ready(mapped(tokens))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(function.asked)) == len(function.asked) == score.tally.scored


def test_what_is_no_score() -> None:
    with pytest.raises(BayesmatError, match="not a function"):
        design.Score(3, ALPHABET)
    with pytest.raises(BayesmatError, match="positive"):
        design.Score(len, ALPHABET).share(0.0)
    with pytest.raises(BayesmatError, match="one string"):
        design.Score(len, ALPHABET)(np.zeros((2, ALPHABET.length), np.int32))
    with pytest.raises(BayesmatError, match="another alphabet"):
        design.Filters([design.Score(len, ALPHABET)], chem.Alphabet.organic())


def test_a_score_may_stand_beside_a_continuous_site(tokens) -> None:
    """Its gradient with respect to anything continuous is that of a constant."""
    score = design.Score(Counting(), ALPHABET)
    value, slope = jax.jit(jax.value_and_grad(lambda z, x: z**2 * score(x)))(3.0, tokens[0])
    assert value == pytest.approx(9 * float(of_tokens(tokens[0]))) and slope == pytest.approx(value * 2 / 3)
