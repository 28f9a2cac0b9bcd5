"""The n-gram prior: normalised, with full support, and what its file formats promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from enumeration import TINY, all_strings, tiny_prior

import bayesmat as bm
from bayesmat import BayesmatError, chem, prior
from bayesmat.prior._factors import Places, end_factors, kind_factors
from bayesmat.prior._kneser_ney import Tables
from bayesmat.prior._ngram import NGram, _ends, _look_back, flat_factors, tables_from_tokens


def test_probabilities_sum_to_one_over_an_enumerable_space() -> None:
    small = tiny_prior()
    strings = all_strings(TINY)
    with jax.enable_x64(True):
        tables = Tables(np.asarray(small.step), np.asarray(small.row), np.asarray(small.probability, np.float64),
                        int(small.start), np.asarray(small.factor))  # fmt: skip
        log_p = np.asarray(jax.jit(NGram(tables, TINY).log_prob)(jnp.asarray(strings)))
    assert np.isfinite(log_p).all()  # full support
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(log_p, np.asarray(small.log_prob(strings)), atol=2e-5)


def test_samples_follow_the_probabilities() -> None:
    small, num = tiny_prior(), 40_000
    strings = all_strings(TINY)
    expected = num * np.exp(np.asarray(small.log_prob(strings), np.float64))
    drawn = np.asarray(jax.jit(lambda key: small.sample(key, (num,)))(jax.random.key(0)))
    index = {row.tobytes(): i for i, row in enumerate(strings)}
    counts = np.bincount([index[row.tobytes()] for row in drawn], minlength=len(strings))
    big = expected >= 5
    chi2 = ((counts - expected)[big] ** 2 / expected[big]).sum()
    assert chi2 < big.sum() + 5 * np.sqrt(2 * big.sum())


def test_illegal_strings_have_no_probability() -> None:
    small = tiny_prior()
    broken = np.zeros((3, TINY.length), np.int32)
    broken[1, :2] = [TINY.names.index("F"), TINY.names.index("F")]
    broken[1, 2] = TINY.names.index("F")
    broken[2, 0] = TINY.open_token
    assert (np.asarray(small.log_prob(broken)) == -np.inf).all()


def test_context_after_a_branch_is_contracted() -> None:
    alphabet = chem.Alphabet.organic()
    tokens = chem.encode("CC(CCN)O", alphabet).tokens
    text = "".join(alphabet.names[t] for t in tokens[0] if t)
    place = text.rindex(")") + 1  # one character a token here
    seen = [alphabet.names[t] if t < alphabet.num_tokens else "^" for t in _look_back(tokens, alphabet, 6)[0, place]]
    after = text[place - 2 : place]
    assert seen[0] == ")" and seen[2] == "(" and "N" not in seen[:2] + seen[3:], (text, after, seen)


def uniform_log_prob(x: jax.Array, alphabet: chem.Alphabet) -> jax.Array:
    """The log probability of a string whose tokens are drawn uniformly from the legal ones."""

    def step(state: chem.State, token: jax.Array) -> tuple[chem.State, jax.Array]:
        return chem.advance(state, token, alphabet), -jnp.log(chem.legal(state, alphabet).sum())

    return jax.lax.scan(step, chem.start(alphabet), x)[1].sum()


def places(share: np.ndarray, kind: np.ndarray, cell: np.ndarray, bucket: np.ndarray, num_buckets: int = 1) -> Places:
    """Places of as many strings, each of which came to its bucket."""
    reached = (bucket[:, None] >= np.arange(num_buckets)).mean(0) if len(share) else np.zeros(num_buckets)
    return Places(np.ascontiguousarray(share.T), cell, bucket, kind, reached, len(share))


def test_factors_find_the_odds_that_made_the_counts() -> None:
    rng = np.random.default_rng(0)
    num, odds = 20_000, np.array([[1.0, 0.2, 3.0], [1.0, 1.0, 1.0]])
    share, cell = rng.dirichlet([2.0, 3.0, 4.0], num), rng.integers(2, size=num)
    weights = share * odds[cell] / (share * odds[cell]).sum(-1, keepdims=True)
    kind = (rng.uniform(size=(num, 1)) > weights.cumsum(-1)).sum(-1)
    bucket = np.zeros(num, int)
    corpus, none = places(share, kind, cell, bucket), places(share[:0], kind[:0], cell[:0], bucket[:0])
    found = np.log(kind_factors(corpus, none, np.ones((2, 3)), np.ones(1), pseudo=0.1, rounds=300))
    found -= found[:, :1]  # only ratios matter
    # The counts are sums of independent draws, so log r is off by some 1/sqrt(count of the rarer kind).
    np.testing.assert_allclose(found, np.log(odds), atol=4 / np.sqrt(np.bincount(kind).min() / 2) * 2)


def test_own_strings_decide_where_the_corpus_never_comes() -> None:
    """Real contexts leave no doubt, so any factor suits them; in the own ones the kinds shall be as frequent."""
    sure, doubtful = np.array([[1e-9, 1.0]] * 1000), np.array([[0.6, 0.4]] * 1000)
    kind, zeros = (np.arange(1000) >= 100).astype(int), np.zeros(1000, int)
    sure[kind == 0] = [1.0, 1e-9]
    corpus, own = places(sure, kind, zeros, zeros), places(doubtful, kind, zeros, zeros)
    factor = kind_factors(corpus, own, np.ones((1, 2)), np.ones(1), weight=0.1, pseudo=1e-6, rounds=300)[0]
    assert 0.6 * factor[0] / (0.6 * factor[0] + 0.4 * factor[1]) == pytest.approx(0.1, rel=1e-3)


def test_own_strings_end_as_rarely_as_real_ones() -> None:
    rng = np.random.default_rng(1)
    num, buckets = 20_000, np.repeat([0, 1, 2], 20_000)
    share = rng.beta(0.5, 0.5, 3 * num) * 0.999  # chances to end, many next to certain
    ends = rng.uniform(size=3 * num) < np.repeat([0.0, 0.001, 0.3], num)
    both = np.stack([share, 1 - share])
    reached = np.ones(3)
    corpus = Places(both, buckets * 0, buckets, (~ends).astype(int), reached, num)
    own = Places(both, buckets * 0, buckets, buckets * 0, reached, num)
    factor = end_factors(corpus, own, np.ones((1, 2)), below=0.02, pseudo=0.001)
    after = [(s * f / (1 - s + s * f)).mean() for s, f in zip(share.reshape(3, num), factor, strict=True)]
    assert after[0] < 1e-6 and factor[2] == 1  # too much of the corpus ends in the last bucket
    assert after[1] == pytest.approx(ends.reshape(3, num)[1].mean(), rel=1e-3)


@pytest.mark.parametrize("alphabet", [chem.Alphabet.organic(40), chem.Alphabet.polymer(40)], ids=["organic", "polymer"])
def test_tokens_that_end_a_string(alphabet) -> None:
    """`_ends` names `END` and the tokens that leave no valence and nothing but `END`; seen from the state after."""

    def step(state: chem.State, token: jax.Array) -> tuple[chem.State, tuple[jax.Array, ...]]:
        after = chem.advance(state, token, alphabet)
        only_end = (jnp.flatnonzero(chem.legal(after, alphabet), size=2, fill_value=-1) == jnp.array([0, -1])).all()
        return after, (_ends(state, alphabet)[token], only_end & (after.free == 0), state.position == 0)

    tokens = chem.random_strings(jax.random.key(0), 4000, alphabet)
    walk = jax.jit(jax.vmap(lambda x: jax.lax.scan(step, chem.start(alphabet), x)[1]))
    said, seen, first = (np.asarray(values) for values in walk(tokens))
    inside = (np.asarray(tokens) != chem.END) & ~first
    assert said[inside].sum() > 1000
    np.testing.assert_array_equal(said[inside], seen[inside])
    assert said[np.asarray(tokens) == chem.END].all()


@pytest.mark.slow
def test_strings_are_as_long_as_those_of_the_corpus() -> None:
    """Fitted to molecules of middle size, the n-gram alone ends too many strings early and leaves too many unended."""
    alphabet = chem.Alphabet.organic()
    corpus = chem.encode(bm.data.corpus("organic").smiles[::6], alphabet).tokens
    length = (corpus > 0).sum(1)
    corpus = corpus[(length >= 24) & (length <= 50)]
    fitted = tables_from_tokens(corpus, alphabet, order=10, min_count=3)
    draw = jax.jit(lambda prior, key: prior.sample(key, (5000,)))
    drawn = [
        np.asarray(draw(NGram(tables, alphabet), jax.random.key(3)))
        for tables in (fitted, fitted._replace(factor=flat_factors(alphabet)))
    ]
    (short, short_alone), (long, long_alone) = (
        [out((tokens > 0).sum(1)).mean() for tokens in drawn] for out in (lambda n: n < 24, lambda n: n > 50)
    )
    # Not one of the corpus is as short, and factors by position alone leave 0.08; a share of 0.02 is off by some 0.002.
    assert short < 0.04 < 0.2 < short_alone, (short, short_alone)
    assert long < 0.15 < 0.25 < long_alone, (long, long_alone)
    repeats, repeats_alone = (len(tokens) - len(np.unique(tokens, axis=0)) for tokens in drawn)
    assert repeats < 0.5 * repeats_alone, (repeats, repeats_alone)


@pytest.fixture(scope="module")
def organic():
    return prior.load("organic")


def test_held_out_molecules_are_finite_and_likelier_than_uniform(organic) -> None:
    corpus = bm.data.corpus("organic").smiles
    order = np.random.default_rng(0).permutation(len(corpus))
    train, test = [corpus[i] for i in order[500:8500]], [corpus[i] for i in order[:500]]
    fitted = prior.fit_ngram(train)
    tokens = chem.encode(test, fitted.alphabet).tokens
    log_p = np.asarray(jax.jit(fitted.log_prob)(jnp.asarray(tokens)))
    assert np.isfinite(log_p).all()
    uniform = np.asarray(jax.jit(jax.vmap(lambda x: uniform_log_prob(x, fitted.alphabet)))(jnp.asarray(tokens)))
    assert np.isfinite(uniform).all()
    bits, uniform_bits = -log_p.mean() / np.log(2), -uniform.mean() / np.log(2)
    assert bits < 0.5 * uniform_bits, (bits, uniform_bits)


def test_samples_are_molecules(organic) -> None:
    drawn = np.asarray(jax.jit(lambda key: organic.sample(key, (2000,)))(jax.random.key(0)))
    texts = [chem.to_smiles(row, organic.alphabet) for row in drawn]
    assert all(chem.is_accepted(text) for text in texts)
    assert len(set(texts)) > 1500
    assert np.isfinite(np.asarray(jax.jit(organic.log_prob)(jnp.asarray(drawn)))).all()


def test_regrow_keeps_the_prefix(organic) -> None:
    x = chem.encode("CCOC(=O)C1=CC=CC=C1", organic.alphabet).tokens[0]
    n = int((x > 0).sum())
    for cut in (0, 3, n, organic.alphabet.length):
        new = np.asarray(organic.regrow(jax.random.key(cut), jnp.asarray(x), jnp.asarray(cut)))
        assert (new[: min(cut, n)] == x[: min(cut, n)]).all()
    np.testing.assert_array_equal(new, x)


def test_numpyro_manners(organic) -> None:
    def model() -> None:
        with numpyro.plate("molecules", 3):
            numpyro.sample("x", organic)

    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace()
    assert trace["x"]["value"].shape == (3, organic.alphabet.length)
    assert organic.event_shape == (organic.alphabet.length,) and organic.batch_shape == ()
    batch = organic.sample(jax.random.key(0), (2, 2))
    assert organic.log_prob(batch).shape == (2, 2)
    leaves, tree = jax.tree.flatten(organic)
    again = jax.tree.unflatten(tree, leaves)
    np.testing.assert_array_equal(again.log_prob(batch), organic.log_prob(batch))


def test_cache_is_read_back_and_a_damaged_one_replaced(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BAYESMAT_CACHE", str(tmp_path))
    corpus = ["CCO", "CCN", "c1ccccc1C", "CC(=O)O", "C[Hg]C"]
    first = prior.fit_ngram(corpus, order=4, cache=True)
    (path,) = (tmp_path / "prior").glob("*.npz")
    second = prior.fit_ngram(corpus, order=4, cache=True)
    np.testing.assert_array_equal(first.probability, second.probability)
    assert first.set_aside == second.set_aside == {"element Hg": 1}
    path.write_bytes(b"PK\x03\x04 not a zip file")
    third = prior.fit_ngram(corpus, order=4, cache=True)
    np.testing.assert_array_equal(first.probability, third.probability)


def test_bad_input() -> None:
    with pytest.raises(BayesmatError, match="known: organic"):
        prior.load("inorganic")
    with pytest.raises(BayesmatError, match="none of the 1 molecules"):
        prior.fit_ngram(["C[Hg]C"])
    with pytest.raises(BayesmatError, match="2 to 11"):
        prior.fit_ngram(["CCO"], order=1)
