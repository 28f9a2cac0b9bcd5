"""The neural prior against exact oracles: enumeration, plain loops in NumPy, closed forms for the training loop."""

from __future__ import annotations

import functools
import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from enumeration import TINY, all_strings, tiny_prior

import bayesmat as bm
from bayesmat import BayesmatError, chem, nn, prior
from bayesmat.prior._neural import Neural
from bayesmat.prior._recurrent import NUM_FEATURES, features, first_place, new_network, next_place
from bayesmat.prior._training import Batch, bits, encode_forms, make_batches

ORGANIC = chem.Alphabet.organic(length=24, max_depth=3, max_rings=2)
CORPUS = [
    f"{head}{middle}{tail}"
    for head in ("C", "CC", "N", "O", "FC", "C1CC1", "ClC")
    for middle in ("C", "C(C)", "C(=O)", "CC", "C(O)C", "c1ccc(C)cc1")
    for tail in ("C", "O", "N", "C#N", "Cl", "CC(=O)O", "C1CCC1", "NC")
]


# Compiled once for all tests: a prior is an argument, not a constant.
log_prob = jax.jit(lambda prior, x: prior.log_prob(x))
token_log_probs = jax.jit(lambda prior, x: prior.token_log_probs(x))
regrow = jax.jit(lambda prior, keys, x, cut: jax.vmap(prior.regrow, (0, None, None))(keys, x, cut))
write_many = jax.jit(lambda prior, keys, slots: prior._write_many(keys, slots), static_argnames="slots")
loss = jax.jit(bits, static_argnames="alphabet")


@functools.cache
def tiny_neural() -> Neural:
    """A network with random weights that are far from symmetric."""
    network = new_network(jax.random.key(5), TINY.num_tokens, 16)
    keys = iter(jax.random.split(jax.random.key(6), 10))
    return Neural(jax.tree.map(lambda a: a + 0.3 * jax.random.normal(next(keys), a.shape), network), TINY)


@pytest.fixture(scope="module")
def small() -> Neural:
    """Fitted in seconds to molecules that are put together from pieces."""
    return prior.fit_neural(CORPUS, ORGANIC, hidden=16, forms=2, epochs=8, batch_size=32, learning_rate=1e-2)


def test_probabilities_sum_to_one_over_an_enumerable_space() -> None:
    neural, strings = tiny_neural(), all_strings(TINY)
    with jax.enable_x64(True):
        network = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), neural.network)
        log_p = np.asarray(jax.jit(Neural(network, TINY).log_prob)(jnp.asarray(strings)))
    assert log_p.dtype == np.float64 and np.isfinite(log_p).all()  # full support
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(log_p, np.asarray(log_prob(neural, strings)), atol=3e-5)
    assert log_p.std() > 0.5  # far from uniform, or the other tests would prove little


def test_samples_and_regrown_strings_follow_the_probabilities() -> None:
    neural, strings, num = tiny_neural(), all_strings(TINY), 40_000
    p = np.exp(np.asarray(log_prob(neural, strings), np.float64))
    index = {row.tobytes(): i for i, row in enumerate(strings)}
    drawn = np.asarray(jax.jit(lambda key: neural.sample(key, (num,)))(jax.random.key(0)))
    assert_follows(np.bincount([index[row.tobytes()] for row in drawn], minlength=len(strings)), p)
    cut, c = 2, TINY.names.index("C")
    same = (strings[:, :cut] == c).all(1)
    row = int(np.flatnonzero(same)[0])
    keys = jax.random.split(jax.random.key(1), num // 4)
    drawn = np.asarray(regrow(neural, keys, jnp.asarray(strings[row]), jnp.asarray(cut)))
    counts = np.bincount([index[string.tobytes()] for string in drawn], minlength=len(strings))
    assert same.sum() > 10 and counts[~same].sum() == 0
    assert_follows(counts[same], p[same] / p[same].sum())


def assert_follows(counts: np.ndarray, p: np.ndarray) -> None:
    """Pearson's statistic over the cells that are expected five times and more lies within five deviations."""
    expected = counts.sum() * p
    big = expected >= 5
    chi2 = ((counts - expected)[big] ** 2 / expected[big]).sum()
    assert big.sum() > 8 and chi2 < big.sum() + 5 * np.sqrt(2 * big.sum()), (chi2, big.sum())


@pytest.mark.slow
def test_slots_write_what_a_scan_of_each_string_writes(small) -> None:
    keys = jax.random.split(jax.random.key(3), 150)
    plain = np.asarray(regrow(small, keys, jnp.zeros(ORGANIC.length, jnp.int32), jnp.asarray(0)))
    np.testing.assert_array_equal(write_many(small, keys, 16), plain)
    np.testing.assert_array_equal(write_many(small, keys[:5], 16), plain[:5])
    assert len(set(map(bytes, plain))) > 50


def by_hand(neural: Neural, tokens: np.ndarray) -> list[float]:
    """Log probabilities of the tokens of one string by plain loops in double precision, with Python's own stack."""
    w = {name: np.asarray(getattr(neural.network, name), np.float64) for name in neural.network.__dataclass_fields__}
    alphabet, size = neural.alphabet, len(w["recurrent"])
    h, stack, place, previous, found = np.zeros(size), [], first_place(alphabet), chem.END, []
    remembered = len(w["keep"])
    for token in tokens:
        if previous == alphabet.open_token:
            stack.append(h[:remembered].copy())
        elif previous == alphabet.close_token:
            g = 1 / (1 + np.exp(-w["keep"]))
            h[:remembered] = g * h[:remembered] + (1 - g) * stack.pop()
        a = w["token"][previous] + np.asarray(features(place, alphabet), np.float64) @ w["place"]
        b = h @ w["recurrent"]
        r, z = (1 / (1 + np.exp(-(a + b)[k * size : (k + 1) * size])) for k in range(2))
        n = np.tanh(a[2 * size :] + r * (b[2 * size :] + w["candidate"]))
        h = (1 - z) * n + z * h
        p = np.exp(h @ w["output"] + w["output_bias"]) * np.asarray(chem.legal(place.grammar, alphabet))
        found.append(math.log(p[token] / p.sum()))
        place, previous = next_place(place, jnp.asarray(token), alphabet), int(token)
    return found


def test_log_prob_is_what_plain_loops_give(small) -> None:
    tokens = chem.encode("CC(C(=O)O)CC1CC(C)C1", ORGANIC).tokens[0]
    assert (tokens == ORGANIC.open_token).sum() > 1
    np.testing.assert_allclose(token_log_probs(small, jnp.asarray(tokens)), by_hand(small, tokens), atol=2e-5)


def test_features_say_where_the_string_stands() -> None:
    place = first_place(ORGANIC)
    assert features(place, ORGANIC).shape == (NUM_FEATURES,)
    text = ["C", "~", "C", "=", "~", "C", "(", "C", ")", "C"]  # a bicycle half written: C1C=2C(C)C…
    for name in text:
        place = next_place(place, jnp.asarray(ORGANIC.names.index(name)), ORGANIC)
    told = np.asarray(features(place, ORGANIC))
    free, rings, others = told[:5], told[5:10], told[-7:]
    assert free.tolist() == [0, 0, 0, 1, 0]  # the last carbon has one bond
    assert rings.tolist() == [0, 0, 1, 0, 0]
    newest, older, third = told[10:40].reshape(3, 10)
    assert newest.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1]  # two bonds back, opened as a double bond
    assert older.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert not third.any()
    np.testing.assert_allclose(others, [0, 0, 0, 14 / 32, 1, 0, 0])


def test_teacher_forced_loss_is_the_log_prob(small) -> None:
    tokens = encode_forms(CORPUS[:50], ORGANIC, 1, 7)[0][0]
    assert 40 < len(tokens) <= 50
    expected = -np.asarray(log_prob(small, jnp.asarray(tokens, jnp.int32)), np.float64).sum() / math.log(2)
    sums = [loss(small.network, batch, alphabet=ORGANIC)
            for batch in make_batches(tokens, 32, np.random.default_rng(0))]  # fmt: skip
    assert sum(float(number) for _, number in sums) == len(tokens)
    assert sum(float(total) for total, _ in sums) == pytest.approx(expected, rel=2e-6)


def test_gradient_of_the_loss_by_differences(small) -> None:
    (batch,) = make_batches(encode_forms(CORPUS[:8], ORGANIC, 1, 7)[0][0], 8, None)
    with jax.enable_x64(True):
        network = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), small.network)
        direction = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), network)

        def along(step: jax.Array) -> jax.Array:
            moved = jax.tree.map(lambda a, d: a + step * d, network, direction)
            return bits(moved, batch, alphabet=ORGANIC)[0]

        value = jax.jit(along)
        difference = (value(jnp.asarray(1e-5)) - value(jnp.asarray(-1e-5))) / 2e-5
        slope = jax.jit(jax.grad(along))(jnp.asarray(0.0, jnp.float64))
        assert float(slope) == pytest.approx(float(difference), rel=1e-6)


def test_batches_hold_every_string_once_without_much_padding() -> None:
    tokens = encode_forms(CORPUS, ORGANIC, 1, 0)[0][0]
    batches = make_batches(tokens, 32, np.random.default_rng(0))
    rows = [np.pad(column, (0, ORGANIC.length - len(column))) for batch in batches
            for column, weight in zip(batch.tokens.T, batch.weight, strict=True) if weight]  # fmt: skip
    assert sorted(map(bytes, rows)) == sorted(map(bytes, tokens))
    assert len({batch.tokens.shape for batch in batches}) <= 3
    assert {batch.tokens.shape[1] for batch in batches} == {32}


def test_forms_are_strings_of_the_same_molecules() -> None:
    smiles = ["CCO", "C[Mg]C", "CC(N)C(=O)O", "Cc1ccccc1", "C" * 40]
    forms, refused = encode_forms(smiles, ORGANIC, 3, 0)
    assert forms.shape == (3, 3, ORGANIC.length) and refused == {"element Mg": 1, "does not fit 24 tokens": 1}
    for column, text in zip(forms.swapaxes(0, 1), ("CCO", "CC(N)C(=O)O", "Cc1ccccc1"), strict=True):
        assert {chem.canonicalize([chem.to_smiles(row, ORGANIC)]).smiles[0] for row in column} == {text}
    assert len(set(map(bytes, forms[:, 1]))) > 1
    canonical = encode_forms(smiles, ORGANIC, 0, 0)[0]
    np.testing.assert_array_equal(canonical[0], chem.encode(smiles, ORGANIC).tokens)


def test_training_lowers_the_held_out_bits(small) -> None:
    history = np.array([line[2] for line in small.card["training"]["history"]])
    assert small.card["held_out"]["bits_per_molecule"] == history.min()
    fresh = Neural(new_network(jax.random.key(0), ORGANIC.num_tokens, 16), ORGANIC)
    tokens = jnp.asarray(encode_forms(CORPUS, ORGANIC, 1, 99)[0][0], jnp.int32)
    before = log_prob._cache_size()
    assert float(log_prob(small, tokens).mean()) > 0.6 * float(log_prob(fresh, tokens).mean())
    assert log_prob._cache_size() == before + 1  # one program for both


@pytest.mark.slow
def test_same_seed_same_weights() -> None:
    def fitted(seed: int) -> list[np.ndarray]:
        neural = prior.fit_neural(CORPUS[:60], ORGANIC, hidden=8, forms=1, epochs=1, batch_size=32, seed=seed)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(neural.network)]

    first, again, other = fitted(0), fitted(0), fitted(1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_illegal_strings_have_no_probability() -> None:
    neural = tiny_neural()
    f = TINY.names.index("F")
    broken = np.zeros((4, TINY.length), np.int32)  # the last one is empty
    broken[1, :3] = f
    broken[2, 0] = TINY.open_token
    broken[0, :] = [TINY.names.index("C"), TINY.ring_open_token, *[TINY.names.index("C")] * 4]  # the ring stays open
    assert (np.asarray(log_prob(neural, broken)) == -np.inf).all()


def test_samples_are_molecules_and_regrow_keeps_the_prefix(small) -> None:
    drawn = np.asarray(write_many(small, jax.random.split(jax.random.key(0), 150), 16))
    assert all(chem.is_accepted(chem.to_smiles(row, ORGANIC)) for row in drawn)
    assert np.isfinite(np.asarray(log_prob(small, drawn))).all()
    assert all(small.to_text(drawn[:20]))
    x = chem.encode("CCOC(=O)C1CCC1", ORGANIC).tokens[0]
    n = int((x > 0).sum())
    for cut in (0, 3, n, ORGANIC.length):
        new = np.asarray(regrow(small, jax.random.split(jax.random.key(cut), 150), jnp.asarray(x), jnp.asarray(cut)))
        assert (new[:, : min(cut, n)] == x[: min(cut, n)]).all()
        assert cut > 3 or (new != x).any()
    np.testing.assert_array_equal(new, np.broadcast_to(x, new.shape))


def test_numpyro_and_jax_manners() -> None:
    neural = tiny_neural()

    def model() -> None:
        with numpyro.plate("molecules", 6):
            numpyro.sample("x", neural)

    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace()
    assert trace["x"]["value"].shape == (6, TINY.length) and trace["x"]["fn"].batch_shape == (6,)
    assert neural.event_shape == (TINY.length,) and neural.batch_shape == ()
    keys = jax.random.split(jax.random.key(0), 6)
    batch = neural.sample(jax.random.key(0), (3, 2))
    assert batch.dtype == jnp.int32 and batch.shape == (3, 2, TINY.length)
    np.testing.assert_array_equal(batch.reshape(6, -1), jax.vmap(neural.sample)(keys))
    assert neural.sample(jax.random.key(0), (0,)).shape == (0, TINY.length)
    log_p = log_prob(neural, batch)
    assert log_p.shape == (3, 2)
    leaves, tree = jax.tree.flatten(neural)
    again = jax.tree.unflatten(tree, leaves)
    assert again.card == {} and not again.set_aside  # what is known of the training does not travel
    np.testing.assert_array_equal(log_prob(again, batch), log_p)


@pytest.mark.slow
def test_samples_in_a_model_with_a_likelihood() -> None:
    """SMC on the tiny space agrees with enumeration."""
    neural, strings = tiny_neural(), all_strings(TINY)
    oxygen = TINY.names.index("O")

    def model() -> None:
        x = numpyro.sample("molecule", neural)
        numpyro.factor("oxygens", 1.5 * (x == oxygen).sum())

    smc = bm.smc.SMC(model, num_particles=2000)
    smc.run(jax.random.key(0))
    p = np.exp(np.asarray(log_prob(neural, strings), np.float64))
    evidence = (p * np.exp(1.5 * (strings == oxygen).sum(1))).sum()
    assert float(smc.log_evidence) == pytest.approx(math.log(evidence), abs=0.15)


# Files


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    return prior.save(small, tmp_path_factory.mktemp("priors") / "small", licence="CC0-1.0")


def test_saved_prior_comes_back_with_the_same_bits(small, saved) -> None:
    again = prior.load(saved)
    for a, b in zip(jax.tree.leaves(small), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert again.alphabet == small.alphabet and again.set_aside == small.set_aside
    assert again.card["held_out"] == small.card["held_out"] and again.card["licence"] == "CC0-1.0"
    twice = prior.load(prior.save(again, saved.parent / "twice"))
    assert twice.card == again.card
    assert prior.save(again, saved.parent / "twice").is_dir()  # one prior replaces another
    assert sorted(path.name for path in saved.iterdir()) == ["arrays.npz", "card.json"]


def test_another_length_is_allowed_and_another_alphabet_is_not(saved) -> None:
    longer = prior.load(saved, ORGANIC.with_length(40))
    assert longer.event_shape == (40,) and prior.load(saved, ORGANIC).alphabet == ORGANIC
    with pytest.raises(BayesmatError, match="max_rings is 2 there and 3"):
        prior.load(saved, chem.Alphabet.organic(24, 3, 3))
    with pytest.raises(BayesmatError, match="atoms"):
        prior.load(saved, chem.Alphabet.druglike(24, 3, 2))


def test_ngram_is_saved_as_well(tmp_path) -> None:
    small = tiny_prior()
    again = prior.load(prior.save(small, tmp_path / "ngram"))
    assert isinstance(again, prior.NGram) and again.set_aside == small.set_aside
    strings = all_strings(TINY)
    np.testing.assert_array_equal(again.log_prob(strings), small.log_prob(strings))


def spoil(folder, **changes: object) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "arrays.npz").write_bytes(b"PK\x03\x04 not a zip file"), "sha256"),
        (lambda f: (f / "arrays.npz").unlink(), "not a saved prior, or is damaged"),
        (lambda f: (f / "card.json").write_text("{"), "not a saved prior, or is damaged"),
        (lambda f: (f / "card.json").write_text("[1]"), "not a saved prior, or is damaged"),
        (lambda f: spoil(f, format=99), "has format 99, this version reads 1"),
        (lambda f: spoil(f, kind="oracle"), "known: neural, ngram"),
        (lambda f: spoil(f, kind="ngram"), "is damaged"),
        (lambda f: spoil(f, alphabet={"atoms": [["C", 0, 4]]}), "have shapes"),
        (lambda f: spoil(f, alphabet={"atoms": [["Xx", 0, 4]]}), "unknown elements"),
        (lambda f: (f / "card.json").unlink(), "not a saved prior, or is damaged"),
    ],
)
def test_damaged_folders_are_named(small, tmp_path, damage, message) -> None:
    folder = prior.save(small, tmp_path / "prior")
    damage(folder)
    with pytest.raises(BayesmatError, match=message):
        prior.load(folder)


def test_bad_input(small, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BayesmatError, match="not a saved prior; name a new or an empty folder"):
        prior.save(small, tmp_path)
    with pytest.raises(BayesmatError, match="or name a folder"):
        prior.load("inorganic", kind="neural")
    with pytest.raises(BayesmatError, match="known: ngram, neural"):
        prior.load("organic", kind="markov")
    with pytest.raises(BayesmatError, match="can say 0 of the 1 molecules, needed are 2: {'element Hg': 1}"):
        prior.fit_neural(["C[Hg]C"])
    for wrong, message in (
        ({"hidden": 0}, "hidden is 0"), ({"forms": -1}, "forms is -1"), ({"held_out": 1.0}, "held_out is 1.0"),
        ({"epochs": 0}, "epochs is 0"), ({"batch_size": 0}, "batch_size is 0"), ({"time_limit": -1.0}, "time_limit"),
    ):  # fmt: skip
        with pytest.raises(BayesmatError, match=message):
            prior.fit_neural(["CCO", "CCN"], **wrong)


@pytest.mark.parametrize("name", prior.names("neural"))
def test_shipped_weights(name) -> None:
    neural = prior.load(name, kind="neural")
    assert neural.card["licence"] and neural.card["corpus"]["description"]
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(neural)) < 3_000_000
    drawn = np.asarray(jax.jit(lambda prior, key: prior.sample(key, (64,)))(neural, jax.random.key(0)))
    texts = [chem.to_smiles(row, neural.alphabet) for row in drawn]
    assert all(chem.is_accepted(text) for text in texts) and len(set(texts)) > 50
    drawn_bits = -np.asarray(jax.jit(neural.log_prob)(jnp.asarray(drawn))).mean() / math.log(2)
    # The prior's own strings need about as many bits as held-out molecules where the two are alike.
    assert drawn_bits == pytest.approx(neural.card["held_out"]["bits_per_molecule"], rel=0.3)


# The training loop, on problems with a known answer


class Line(eqx.Module):
    """y = w x."""

    w: jax.Array


def square(model: Line, batch: tuple[np.ndarray, np.ndarray], key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    x, y = batch
    return ((y - model.w * x) ** 2).sum(), jnp.asarray(float(len(x)))


X = np.linspace(-1, 1, 32, dtype=np.float32)


def line(**settings: object) -> nn.Trained[Line]:
    held_out = settings.pop("held_out", [(X, 3 * X)])
    report = settings.pop("report", None)
    batches = settings.pop("batches", lambda epoch: [(X, 3 * X)] * 20)
    return nn.train(Line(jnp.zeros(())), square, batches, held_out, nn.Schedule(**settings), report=report)


def test_loop_finds_the_minimum() -> None:
    trained = line(epochs=30, learning_rate=0.2, patience=30)
    assert float(trained.model.w) == pytest.approx(3, abs=1e-3)
    assert trained.stop is nn.Stop.EPOCHS and len(trained.history) == 30
    assert trained.best.held_out == min(epoch.held_out for epoch in trained.history)


def test_early_stopping_keeps_the_best_weights() -> None:
    # Held-out data want a slope of 1, which the way to 3 passes by.
    trained = line(epochs=50, learning_rate=0.02, patience=2, held_out=[(X, X)])
    assert trained.stop is nn.Stop.PATIENCE
    assert len(trained.history) == trained.best.number + 2 < 50
    (total, number) = square(trained.model, (X, X), None)
    assert float(total / number) == pytest.approx(trained.best.held_out, rel=1e-6)
    assert trained.best.held_out < trained.history[-1].held_out


def test_time_limit_and_interrupt_keep_what_was_reached() -> None:
    trained = line(epochs=100_000, learning_rate=0.1, time_limit=0.5, patience=100_000)
    assert trained.stop is nn.Stop.TIME and 0 < trained.history[-1].seconds < 5

    def interrupt(epoch: nn.Epoch) -> None:
        if epoch.number == 3:
            raise KeyboardInterrupt

    trained = line(epochs=10, report=interrupt)
    assert trained.stop is nn.Stop.INTERRUPTED and len(trained.history) == 3

    def stopped(epoch: int) -> list:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        line(batches=stopped)


def test_loop_refuses_what_it_cannot_train() -> None:
    with pytest.raises(BayesmatError, match="at least one training batch"):
        line(batches=lambda epoch: [])
    with pytest.raises(BayesmatError, match="at least one training batch"):
        line(held_out=[])
    with pytest.raises(BayesmatError, match="not finite"):
        line(batches=lambda epoch: [(X, np.nan * X)])
    with pytest.raises(BayesmatError, match="warm_up is 1"):
        nn.Schedule(warm_up=1)


def test_schedule_warms_up_and_decays_to_zero() -> None:
    schedule = nn.Schedule(learning_rate=0.5, warm_up=0.1)
    rates = np.array([schedule.rate(progress) for progress in np.linspace(0, 1, 101)])
    assert 0 < rates[0] < 0.01 and rates.argmax() == 10 and rates.max() == 0.5
    assert (
        rates[-1] == pytest.approx(0, abs=1e-12) and (np.diff(rates[10:]) < 0).all() and (np.diff(rates[:10]) > 0).all()
    )
    assert rates[55] == pytest.approx(0.25)


def test_time_first_batches_have_the_declared_shapes() -> None:
    batch = Batch(np.zeros((8, 4), np.uint8), np.ones(4, np.float32))
    total, number = bits(tiny_neural().network, batch, alphabet=TINY.with_length(8))
    assert total.shape == () and float(number) == 4
