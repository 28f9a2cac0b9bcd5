"""Every kernel's exact action on an enumerable space: πP = π to 1e-10 in float64, and its draws against their law."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import SMALL, TINY, TablePrior, all_strings, regrow_matrices, table_prior, tiny_prior

from bayesmat import BayesmatError, chem, smc

BETAS = (0.15, 0.6, 1.0)


@functools.cache
def space(alphabet: chem.Alphabet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The strings, an asymmetric prior of full support, and a log likelihood that forbids some strings."""
    strings = all_strings(alphabet)
    p = np.random.default_rng(0).gamma(0.7, size=len(strings)) + 1e-3
    carbon, oxygen = alphabet.names.index("C"), alphabet.names.index("O")
    length = (strings > 0).sum(1)
    ell = 1.7 * (strings == oxygen).sum(1) + 0.9 * length - 0.4 * (strings == carbon).sum(1) ** 1.5 - 4.0
    forbidden = ((strings == alphabet.open_token).any(1)) & ((strings == oxygen).sum(1) == 1)
    assert 0 < forbidden.sum() < len(strings) / 2
    return strings, p / p.sum(), np.where(forbidden, -np.inf, ell)


def tempered(p: np.ndarray, ell: np.ndarray, beta: float) -> np.ndarray:
    weight = np.where(np.isfinite(ell), p * np.exp(beta * np.nan_to_num(ell, neginf=0)), 0)
    return weight / weight.sum()


class Rows:
    """Looks strings up among those of a space."""

    def __init__(self, strings: np.ndarray):
        self.base = strings.max() + 1
        self.row = np.full(self.base ** strings.shape[1], -1)
        self.weights = self.base ** np.arange(strings.shape[1])
        self.row[strings @ self.weights] = np.arange(len(strings))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Row of each string; -1 for none."""
        x = np.asarray(x)
        return np.where((x < self.base).all(-1), self.row[np.minimum(x, self.base - 1) @ self.weights], -1)


def flow(target, here, there, probability, correction, ell, beta, delayed) -> np.ndarray:
    """target · P, from all paths here → there with their probability, accepted as the sampler does.

    `ell`, `here` and `there` are of the space that the kernel works on: strings, or pairs of them.
    """
    with jax.enable_x64(True):
        before, after, beta = jnp.asarray(ell[here]), jnp.asarray(ell[there]), jnp.float64(beta)
        correction = jnp.asarray(correction)
        if delayed:
            first = smc.accept_log_prob(beta, before * 0 + 1.0, before * 0 + 1.0, correction)
            log_alpha = first + smc.accept_log_prob(beta, before, after, jnp.zeros_like(correction))
        else:
            log_alpha = smc.accept_log_prob(beta, before, after, correction)
        moved = target[here] * probability * np.exp(np.asarray(log_alpha))
    return target + np.bincount(there, moved, len(target)) - np.bincount(here, moved, len(target))


def assert_invariant(p, ell, paths, delayed=False) -> None:
    here, there, probability, correction = paths
    assert (probability > 0).all()
    possible = there >= 0
    # What leads out of the space must be refused by its correction.
    assert np.isneginf(correction[~possible]).all()
    here, there, probability, correction = (part[possible] for part in (here, there, probability, correction))
    for beta in BETAS:
        target = tempered(p, ell, beta)
        after = flow(target, here, there, probability, correction, ell, beta, delayed)
        assert np.abs(after - target).sum() <= 1e-10
        none = np.where(np.isfinite(correction), 0.0, -np.inf)
        wrong = flow(target, here, there, probability, none, ell, beta, delayed)
        if np.abs(correction[np.isfinite(correction)]).max() > 1e-9:
            assert np.abs(wrong - target).sum() > 1e-3, "the correction makes no difference: the test shows nothing"


def regrow_paths(kernel, cut_law, alphabet, size):
    """Paths of a regrow kernel, with the law of its cuts as the test knows it."""
    strings, p, _ = space(alphabet)
    lengths = (strings > 0).sum(1)
    laws = regrow_matrices(strings, p)
    parts = []
    with jax.enable_x64(True):
        x = jnp.asarray(strings)
        corrections = np.asarray(
            jax.vmap(lambda a: jax.vmap(lambda b: kernel.log_correction(a, b, jnp.float64(size)))(x))(x)
        )
    for cut, law in enumerate(laws):
        here, there = np.nonzero(law)
        probability = cut_law(cut, lengths[here]) * law[here, there]
        used = probability > 0
        parts.append((here[used], there[used], probability[used], corrections[here, there][used]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def uniform_cut(cut, n):
    return np.where(cut <= n, 1 / (n + 1), 0.0)


def tail_cut(cut, n, size=1.2):
    ratio = np.exp(size) / (1 + np.exp(size))
    weights = ratio ** np.arange(0, 20)
    total = np.array([weights[: m + 1].sum() for m in range(20)])
    return np.where(cut <= n, ratio ** np.maximum(n - cut, 0) / total[n], 0.0)


@pytest.mark.parametrize(
    ("kernel", "law"),
    [
        (smc.Regrow(), uniform_cut),
        (smc.RegrowTail(), tail_cut),
        (smc.Independence(), lambda cut, n: np.where(cut == 0, 1.0, 0.0) + 0 * n),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("delayed", [False, True])
def test_regrowing_leaves_the_tempered_target_invariant(kernel, law, delayed) -> None:
    _, p, ell = space(TINY)
    assert_invariant(p, ell, regrow_paths(kernel, law, TINY, 1.2), delayed)


def geometric_law(k, mean):
    """The law of one length, as the test knows it."""
    return (1 / (1 + mean)) * (mean / (1 + mean)) ** k


def span_law(k, m, mean):
    """The law of two lengths that are not both zero."""
    both = geometric_law(k, mean) * geometric_law(m, mean)
    return np.where(np.maximum(k, m) > 0, both / (1 - geometric_law(0, mean) ** 2), 0.0)


def infill_paths():
    strings, p, _ = space(SMALL)
    lengths, most, mean = (strings > 0).sum(1), strings.shape[1], np.exp(0.4)
    kernel, laws, rows = smc.Infill(), regrow_matrices(strings, p), Rows(strings)
    parts = []
    with jax.enable_x64(True):
        prior = table_prior(strings, p)

        @jax.jit
        def apply(x, grown, start, removed, inserted):
            def one(x, grown):
                return kernel.apply(x, smc.Span(start, removed, inserted, grown), prior)

            return jax.vmap(one)(x, grown)

        for start in range(most + 1):
            here, grown = np.nonzero(laws[start])
            for removed, inserted in itertools.product(range(most + 1), repeat=2):
                if removed == inserted == 0:
                    continue
                fits = lengths[here] - removed >= start
                a, b = here[fits], grown[fits]
                if not len(a):
                    continue
                new, correction = apply(strings[a], strings[b], start, removed, inserted)
                law = span_law(removed, inserted, mean) / (lengths[a] - removed + 1)
                parts.append((a, rows(new), law * laws[start][a, b], np.asarray(correction)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("delayed", [False, True])
def test_infill_leaves_the_tempered_target_invariant(delayed) -> None:
    _, p, ell = space(SMALL)
    assert_invariant(p, ell, infill_paths(), delayed)


def crossover_paths(strings, p):
    """Paths on pairs of strings, numbered x · S + y."""
    num, most, mean = len(strings), strings.shape[1], np.exp(0.9)
    lengths, kernel, rows = (strings > 0).sum(1), smc.Crossover(), Rows(strings)
    here = np.arange(num * num)
    x, y = strings[here // num], strings[here % num]
    n_x, n_y = lengths[here // num], lengths[here % num]
    parts = []
    with jax.enable_x64(True):
        prior = table_prior(strings, p)

        @jax.jit
        def apply(x, y, a, removed, b, other):
            return jax.vmap(lambda x, y: kernel.apply(x, y, smc.Swap(a, removed, b, other), prior, prior))(x, y)

        for a, removed, b, other in itertools.product(range(most + 1), repeat=4):
            fits = (n_x - removed >= a) & (n_y - other >= b)
            if not fits.any() or removed == other == 0:
                continue
            (new_x, new_y), correction = apply(x[fits], y[fits], a, removed, b, other)
            law = span_law(removed, other, mean) / ((n_x - removed + 1) * (n_y - other + 1))[fits]
            first, second = rows(new_x), rows(new_y)
            there = np.where((first >= 0) & (second >= 0), first * num + second, -1)
            parts.append((here[fits], there, law, np.asarray(correction)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("delayed", [False, True])
def test_crossover_leaves_the_product_of_two_targets_invariant(delayed) -> None:
    strings, p, ell = space(SMALL)
    chosen = np.random.default_rng(1).permutation(len(strings))[:40]
    strings, p, ell = strings[chosen], p[chosen] / p[chosen].sum(), ell[chosen]
    here, there, probability, correction = crossover_paths(strings, p)
    num = len(strings)
    pair_ell = (ell[:, None] + ell[None]).ravel()
    pair_p = (p[:, None] * p[None]).ravel()
    assert (there != here)[np.isfinite(correction)].mean() > 0.05, "no swap worth the name"
    assert len(pair_ell) == num * num
    assert_invariant(pair_p, pair_ell, (here, there, probability, correction), delayed)


def test_reorder_leaves_the_tempered_target_invariant() -> None:
    """Things are strings of the same tokens; the rewriting law is any one on each, with a string it never writes."""
    strings, p, ell = space(SMALL)
    thing = np.unique(np.sort(strings, 1), axis=0, return_inverse=True)[1].ravel()
    q = np.random.default_rng(2).gamma(1.0, size=len(strings))
    sizes = np.bincount(thing)
    q[np.flatnonzero(sizes[thing] > 3)[0]] = 0.0
    q = q / np.bincount(thing, q)[thing]

    with jax.enable_x64(True):
        q_x = jnp.log(jnp.asarray(q))

        class Rewriting(TablePrior):
            """`key` is the number of the string that comes out."""

            def rewrite(self, key, x):
                row = jnp.argmax((self.strings == x).all(1))
                return self.strings[key], q_x[row] - q_x[key]

        table = table_prior(strings, p)
        prior = Rewriting(table.mass, table.strings, table.log_p)
        here, there = np.nonzero((thing[:, None] == thing[None]) & (q[None] > 0))
        propose = jax.jit(jax.vmap(lambda there, x: smc.Reorder().propose(there, x, prior, jnp.float64(0))))
        new, correction = propose(jnp.asarray(there), jnp.asarray(strings[here]))
    moved = np.isfinite(correction)
    np.testing.assert_array_equal(np.asarray(new)[moved], strings[there[moved]])
    assert (~moved).any()
    assert_invariant(p, ell, (here, there, q[there], np.asarray(correction)))


def test_published_loop_is_off_the_posterior() -> None:
    """iQSPR (Ikebata 2017): delete a tail, regrow, always keep, then resample by the likelihood.

    Its fixed point is the leading left eigenvector of mutation times selection, not the posterior.
    """
    _, p, ell = space(TINY)
    here, there, probability, _ = regrow_paths(smc.Regrow(), uniform_cut, TINY, 0.0)
    mutation = np.zeros((len(p), len(p)))
    np.add.at(mutation, (here, there), probability)
    selection = np.where(np.isfinite(ell), np.exp(np.nan_to_num(ell, neginf=0)), 0.0)
    fixed = np.full(len(p), 1.0 / len(p))
    for _ in range(500):
        fixed = (fixed @ mutation) * selection
        fixed /= fixed.sum()
    assert 0.5 * np.abs(fixed - tempered(p, ell, 1.0)).sum() > 0.05


def assert_counts_follow(counts: np.ndarray, expected: np.ndarray) -> None:
    """Chi-square with cells of at least five expected; none where nothing is expected."""
    assert counts[expected <= 1e-9].sum() == 0
    big = expected >= 5
    counts, expected = np.append(counts[big], counts[~big].sum()), np.append(expected[big], expected[~big].sum())
    keep = expected > 0.5
    chi2, freedom = ((counts - expected)[keep] ** 2 / expected[keep]).sum(), max(keep.sum() - 1, 1)
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom) + 5


def test_regrow_draws_from_the_conditional_prior() -> None:
    """The n-gram's compiled draw against the exact law, at one string and every cut."""
    strings, prior, num = all_strings(TINY), tiny_prior(), 20_000
    p = np.exp(np.asarray(jax.jit(prior.log_prob)(strings), np.float64))
    p, rows = p / p.sum(), Rows(strings)
    start = int(np.argmax((strings > 0).sum(1) * (p > np.quantile(p, 0.9))))
    laws = regrow_matrices(strings, p)
    draw = jax.jit(jax.vmap(prior.regrow, in_axes=(0, None, None)))
    for cut in range(TINY.length + 1):
        drawn = draw(jax.random.split(jax.random.key(cut), num), jnp.asarray(strings[start]), jnp.asarray(cut))
        counts = np.bincount(rows(drawn), minlength=len(strings))
        assert_counts_follow(counts, num * laws[cut][start])


def test_choices_follow_the_laws_that_the_matrices_use() -> None:
    strings, p, _ = space(SMALL)
    prior, num = table_prior(strings, p), 20_000
    x = jnp.asarray(strings[np.argmax((strings > 0).sum(1) == 4)])
    y = jnp.asarray(strings[np.argmax((strings > 0).sum(1) == 3)])
    keys = jax.random.split(jax.random.key(0), num)
    tail = jax.jit(jax.vmap(lambda key: smc.RegrowTail().draw(key, x, prior, jnp.float32(1.2))))(keys)
    cut = jax.jit(jax.vmap(lambda key: smc.Regrow().draw(key, x, prior, jnp.float32(1.2))))(keys)
    cuts = np.arange(5)
    assert_counts_follow(np.bincount(tail, minlength=5), num * tail_cut(cuts, np.full(5, 4)))
    assert_counts_follow(np.bincount(cut, minlength=5), num * uniform_cut(cuts, np.full(5, 4)))
    span = jax.jit(jax.vmap(lambda key: smc.Infill().draw(key, x, prior, jnp.float32(0.4))))(keys)
    swap = jax.jit(jax.vmap(lambda key: smc.Crossover().draw(key, x, y, jnp.float32(0.4))))(keys)
    lengths = np.arange(60)
    law = span_law(lengths[:, None], lengths[None], np.exp(0.4)).sum(1)
    for start, removed, n in ((span.start, span.removed, 4), (swap.start_other, swap.removed_other, 3)):
        assert_counts_follow(np.bincount(removed, minlength=60)[:60], num * law)
        for k in range(n):
            given = np.asarray(start)[np.asarray(removed) == k]
            assert_counts_follow(
                np.bincount(given, minlength=n + 1), len(given) * (np.arange(n + 1) <= n - k) / (n - k + 1)
            )
    for inserted in (span.inserted, swap.removed):
        assert_counts_follow(np.bincount(inserted, minlength=60)[:60], num * law)
    assert (np.asarray(span.grown) == np.asarray(x))[np.arange(5) < np.asarray(span.start)[:, None]].all()


def test_splice_is_what_slicing_does() -> None:
    rng = np.random.default_rng(0)
    run = jax.jit(smc.splice)
    for _ in range(200):
        n, m = rng.integers(1, 8, 2)
        x, y = np.zeros(8, np.int32), np.zeros(8, np.int32)
        x[:n], y[:m] = rng.integers(1, 9, n), rng.integers(1, 9, m)
        removed, inserted = rng.integers(0, n + 1), rng.integers(0, m + 1)
        a, b = rng.integers(0, n - removed + 1), rng.integers(0, m - inserted + 1)
        expected = [*x[:a], *y[b : b + inserted], *x[a + removed : n]]
        new, fits = run(x, a, removed, y, b, inserted)
        assert bool(fits) == (len(expected) <= 8)
        if fits:
            np.testing.assert_array_equal(new, expected + [0] * (8 - len(expected)))


@pytest.mark.parametrize("scheme", ["systematic", "stratified", "residual", "multinomial"])
def test_resampling_is_unbiased_and_never_takes_a_zero(scheme) -> None:
    log_weights = jnp.array([-jnp.inf, 0.3, -2.0, -jnp.inf, 1.9, -4.0, -jnp.inf])
    w = np.exp(np.asarray(log_weights, float))
    w /= w.sum()
    num, repeats = 10, 20_000
    keys = jax.random.split(jax.random.key(1), repeats)
    resample = getattr(smc, scheme)
    chosen = np.asarray(jax.jit(jax.vmap(lambda key: resample(key, log_weights, num)))(keys))
    counts = np.stack([(chosen == i).sum(1) for i in range(len(w))], 1)
    assert counts[:, w == 0].sum() == 0
    error = counts.std(0) / np.sqrt(repeats)
    # Rounding of float32 weights moves the means by some 1e-6.
    assert (np.abs(counts.mean(0) - num * w) <= 4.5 * error + 1e-5).all()
    if scheme == "systematic":
        assert (np.abs(counts - num * w) < 1).all()
    if scheme == "residual":
        assert (counts >= np.floor(num * w)).all()
    if scheme == "multinomial":
        np.testing.assert_allclose(counts.var(0), num * w * (1 - w), rtol=0.15)
    spread = {"systematic": 0.3, "stratified": 1.1, "residual": 1.3, "multinomial": 2.6}[scheme]
    assert counts.var(0).max() < spread


def test_resampling_survives_weights_that_round_to_nothing() -> None:
    one = jnp.full(7, -jnp.inf).at[3].set(-1e4)
    for scheme in ("systematic", "stratified", "residual", "multinomial"):
        chosen = np.asarray(getattr(smc, scheme)(jax.random.key(0), one, 50))
        assert (chosen == 3).all()


def test_gibbs_sweep_is_reversible() -> None:
    """π(x) P(x → x') against its reverse; a sweep in one order fails this by 0.02 and more."""
    table, num = jnp.array([[[0.0, 1.5], [-1.0, 2.0]], [[1.0, -1.0], [0.5, -2.0]]]), 200_000
    density = smc.Density(lambda x: 0.0, lambda x: table[tuple(x)], jnp.float32(1.0))
    states = jnp.array(list(itertools.product((0, 1), repeat=3)))

    @jax.jit
    def rows(key, x):
        draw = jax.vmap(lambda k: smc.Gibbs().propose(k, x, None, jnp.array([0, 1]), density).x)
        return (draw(jax.random.split(key, num)) * jnp.array([4, 2, 1])).sum(-1)

    weight = np.exp([float(table[tuple(x)]) for x in np.asarray(states)])
    keys = jax.random.split(jax.random.key(0), 8)
    counts = [np.bincount(rows(key, x), minlength=8) for key, x in zip(keys, states, strict=True)]
    flux = (weight / weight.sum())[:, None] * np.array(counts) / num
    error = np.sqrt((weight / weight.sum())[:, None] * flux / num)
    assert (np.abs(flux - flux.T) <= 5 * np.sqrt(error**2 + error.T**2) + 1e-12).all()


def test_kernels_that_do_not_suit_are_refused() -> None:
    import numpyro

    strings, p, ell = space(SMALL)
    prior = table_prior(strings, p)

    def model() -> None:
        x = numpyro.sample("molecule", prior)
        numpyro.factor("target", -(x != 0).sum() * 0.1)

    def sampler(kernels):
        return smc.SMC(model, 16, kernels, progress_bar=False)

    with pytest.raises(BayesmatError, match=r"random walk.*suit no site"):
        sampler([smc.RandomWalk()]).run(jax.random.key(0))
    with pytest.raises(BayesmatError, match="rewrite"):
        sampler([smc.Reorder()]).run(jax.random.key(0))
    with pytest.raises(BayesmatError, match=r"\['atom'\].*\['molecule'\]"):
        sampler({"atom": [smc.Regrow()]}).run(jax.random.key(0))
    with pytest.raises(BayesmatError, match="Gibbs"):
        sampler({"molecule": [smc.Gibbs()]}).run(jax.random.key(0))
