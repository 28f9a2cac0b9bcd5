"""Libraries of pre-trained models: training in stacks, files that are what they say, and the command line."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmat import chem, cli
from bayesmat._types import BayesmatError, read_arrays
from bayesmat.cli._library import read_tables
from bayesmat.nn import _ensemble as ensemble, _library as stored, _pretrain as pretraining
from bayesmat.nn._library import FeatureSet, Library, entry_of, library

D = 9
FEATURES = FeatureSet("test", "1", tuple(f"x{i}" for i in range(D)))


def table(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Features of different scales, one of them constant; a linear property, and a positive one of long tail."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, D)) * np.geomspace(0.1, 10, D) + 3
    x[:, 4] = 7.0
    z = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    y = np.stack([1e4 + 100 * z[:, :3].sum(1), np.exp(z[:, 5] + z[:, 6])], 1)
    y[: n // 4, 1] = np.nan
    return x.astype(np.float32), y


@functools.cache
def trained(num: int = 6) -> tuple[ensemble.Member, ...]:
    x, y = table()
    groups = ensemble.train_ensemble(x, y, num, seed=3, widths=(16, 32), group_size=num, progress=False)
    return tuple(sorted((member for group in groups for member in group), key=lambda member: member.seed))


@functools.cache
def small() -> Library:
    members = trained()
    said = (("linear", "K", "molecule"), ("tailed", "1", "polymer"))
    entries = [entry_of(member, *said[member.target], source="test", licence="CC0-1.0") for member in members]
    named = dict(zip([entry.name for entry in entries], members, strict=True))
    return Library(FEATURES, named, {entry.name: entry for entry in entries}, {"structures": 400})


def outputs(library: Library, x: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(library[name].predict(x)) for name in library])


def test_a_network_learns_and_its_errors_are_those_of_its_held_out_rows() -> None:
    x, y = table()
    for member in trained():
        plan = ensemble._plan(x, y, member.seed[1], 3, (16, 32), 3000)
        assert not set(plan.train) & set(plan.held_out) and np.isfinite(y[plan.train, member.target]).all()
        assert 4 not in member.features  # it is constant
        assert list(member.widths) == sorted(member.widths, reverse=True) and 3 <= len(member.widths) <= 5
        assert member.log == (member.target == 1)
        made = np.asarray(ensemble.unpack(member, D).predict(jnp.asarray(x[plan.held_out])))
        measured = y[plan.held_out, member.target]
        assert member.mae == pytest.approx(np.abs(made - measured).mean(), rel=2e-3)
        a, b = (np.log(made), np.log(measured)) if member.log else (made, measured)
        assert member.r2 == pytest.approx(1 - ((a - b) ** 2).sum() / ((b - b.mean()) ** 2).sum(), abs=1e-3)
    # A network that was given all features of its property has them to learn from; the noise is nil.
    informed = [m for m in trained() if set(({0, 1, 2}, {5, 6})[m.target]) <= set(m.features)]
    assert informed and all(member.r2 > 0.9 for member in informed)


def test_a_network_does_not_depend_on_what_it_is_stacked_with() -> None:
    x, _ = table()
    for whole, part in zip(trained()[:4], trained(4), strict=True):
        assert (whole.widths, whole.seed, whole.slope) == (part.widths, part.seed, part.slope)
        np.testing.assert_array_equal(whole.features, part.features)
        made = [np.asarray(ensemble.unpack(member, D).standardised(jnp.asarray(x))) for member in (whole, part)]
        assert np.abs(made[0] - made[1]).max() < 0.02  # rounding, grown by some hundred steps


def test_groups_are_alike_and_lose_none() -> None:
    x, y = table()
    plans = [ensemble._plan(x, y, i, 0, (16, 256), 3000) for i in range(150)]
    groups = ensemble._alike(plans, 16)
    assert sorted(plan.member.seed for group in groups for plan in group) == [(0, i) for i in range(150)]
    assert max(map(len, groups)) <= 16 and len(groups) == 10
    in_order = [plans[i : i + 16] for i in range(0, 150, 16)]
    assert sum(map(ensemble._work, groups)) < 0.7 * sum(map(ensemble._work, in_order))


def test_padding_stays_zero() -> None:
    x, y = table()
    plans = [ensemble._plan(x, y, i, 3, (16, 32), 3000) for i in (0, 2)]
    plans = [plan._replace(steps=50) for plan in plans]
    stack = ensemble._trained(jnp.asarray(x), y, plans, lambda: None)
    for i, plan in enumerate(plans):
        member = plan.member
        for layer, kernel in enumerate(np.asarray(k[i]) for k in stack.weights.kernels):
            own = np.zeros(kernel.shape, bool)
            if layer < len(member.widths):
                rows = member.features if layer == 0 else np.arange(member.widths[layer - 1])
                own[np.ix_(rows, np.arange(member.widths[layer]))] = True
            assert not kernel[~own].any() and (layer >= len(member.widths) or kernel[own].all())


def test_half_precision_costs_nothing() -> None:
    """Weights are stored in 16 bits: predictions move by less than 0.5 % of their standard deviation."""
    x, y = table()
    plans = [ensemble._plan(x, y, i, 3, (16, 32), 3000) for i in range(6)]
    exact = ensemble._trained(jnp.asarray(x), y, plans, lambda: None)
    kept = ensemble.stack([ensemble.unpack(member, D) for member in ensemble._judged(jnp.asarray(x), y, plans, exact)])
    made = [np.asarray(jax.vmap(lambda net: net.standardised(jnp.asarray(x)))(nets)) for nets in (exact, kept)]
    change = np.sqrt(((made[0] - made[1]) ** 2).mean(1)) / made[0].std(1)
    assert 0 < change.max() < 0.005, change


def test_what_is_read_is_what_was_saved(tmp_path) -> None:
    x, _ = table(50)
    read = library(small().save(tmp_path / "mine"))
    assert read.list() == small().list() and read.feature_set == FEATURES and read.about == {"structures": 400}
    np.testing.assert_array_equal(outputs(read, x), outputs(small(), x))
    again = read.save(tmp_path / "mine")  # a library is replaced
    assert library(again).list() == read.list()
    assert library(Library(FEATURES, {}, {}).save(tmp_path / "none")).list() == ()
    assert stored.check_target(tmp_path / "new") == tmp_path / "new"


def test_by_name_and_by_query() -> None:
    lib, table_ = small(), small().to_dataframe()
    assert len(lib) == 6 and list(lib) == list(table_.index) and list(lib)[0] in lib
    assert set(lib.query(property="linear").to_dataframe().property) == {"linear"}
    assert set(lib.query(material="polymer").to_dataframe().property) == {"tailed"}
    best = lib.query(min_r2=float(np.median(table_.r2)))
    assert [e.r2 for e in best.list()] == sorted(table_.r2[table_.r2 >= table_.r2.median()], reverse=True)
    shape = table_.architecture.iloc[0]
    assert set(lib.query(architecture=shape).to_dataframe().architecture) == {shape}
    assert [len(lib.best(k)) for k in (1, 2, 9)] == [2, 4, 6]
    assert lib.best(1).list()[0].r2 == table_.r2[table_.property == "linear"].max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lib: lib["nothing"], "no model 'nothing'"),
        (lambda lib: lib.stack(["nothing"]), "no model 'nothing'"),
        (lambda lib: lib.stack([]), "at least one model"),
        (lambda lib: lib.query(property="lin"), "known: linear, tailed"),
        (lambda lib: lib.query(material="metal"), "known: molecule, polymer"),
        (lambda lib: lib[list(lib)[0]].predict(np.zeros((2, D + 1))), "shape \\(2, 10\\)"),
        (lambda lib: lib[list(lib)[0]](np.float32(1)), "shape \\(\\)"),
        (lambda lib: lib.stack().hidden(np.zeros(D - 1)), "shape \\(8,\\)"),
        (lambda lib: lib + replace(lib, feature_set=replace(FEATURES, version="2")), "do not mix"),
    ],
)
def test_bad_requests_are_named(call, message) -> None:
    with pytest.raises(BayesmatError, match=message):
        call(small())


def test_a_stack_is_its_models() -> None:
    x, _ = table(20)
    lib = small()
    together, names = lib.stack(), list(lib)
    made, hidden = jax.jit(lambda s, x: (s.predict(x), s.hidden(x)))(together, x.reshape(4, 5, D))
    assert made.shape == (4, 5, 6) and hidden.shape[:3] == (4, 5, 6)
    for i, name in enumerate(names):
        one = lib[name]
        np.testing.assert_allclose(made[..., i].ravel(), one.predict(x), rtol=1e-4)
        width = one.entry.widths[-1]
        np.testing.assert_allclose(hidden[..., i, :width].reshape(20, width), one(x), rtol=1e-3, atol=1e-5)
        assert not hidden[..., i, width:].any()
        last, readout = one(x), one.network.weights.readout  # the property is linear in the hidden layer
        y = one.entry.y_center + one.entry.y_scale * (last @ readout + one.network.weights.offset)
        np.testing.assert_allclose(one.predict(x), np.exp(y) if one.entry.log else y, rtol=1e-4)


def test_far_from_the_training_data_predictions_stay_finite() -> None:
    assert np.isfinite(outputs(small(), np.full((1, D), 1e30, np.float32))).all()


def test_libraries_add_up(tmp_path, monkeypatch) -> None:
    lib = small()
    names = list(lib)
    parts = lib.only(names[:4]), lib.only(names[2:])
    assert list(sum(parts[1:], parts[0])) == names  # models in both are there once
    for i, part in enumerate(parts):
        part.save(tmp_path / "library" / "all" / f"shard-{i}")
    assert list(library(tmp_path / "library" / "all")) == names
    monkeypatch.setenv("BAYESMAT_CACHE", str(tmp_path))
    assert list(library("all")) == names
    with pytest.raises(BayesmatError, match="holds no library"):
        library("nothing")


def edit(folder: Path, change) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def rewrite(folder: Path, **changed: np.ndarray) -> None:
    np.savez(folder / "arrays.npz", **{**read_arrays(folder / "arrays.npz"), **changed})


def first(**changed):
    return lambda folder: edit(folder, lambda card: card["models"][0].update(changed))


class Hostile:
    """What a hostile file holds: unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple:
        return Path("mark").mkdir, ()


DAMAGES = {
    "no arrays": (lambda f: (f / "arrays.npz").unlink(), "cannot be read"),
    "objects": (lambda f: rewrite(f, weights=np.array([Hostile()], object)), "cannot be read"),
    "cut short": (lambda f: (f / "arrays.npz").write_bytes((f / "arrays.npz").read_bytes()[:-80]), "cannot be read"),
    "no card": (lambda f: (f / "card.json").unlink(), "holds no library"),
    "no JSON": (lambda f: (f / "card.json").write_text("{"), "damaged"),
    "deep JSON": (lambda f: (f / "card.json").write_text("[" * 200_000), "damaged"),
    "a list": (lambda f: (f / "card.json").write_text("[]"), "damaged"),
    "other format": (lambda f: edit(f, lambda card: card.update(format=0)), "has format 0"),
    "no models": (lambda f: edit(f, lambda card: card.update(models=None)), "damaged"),
    "fewer models": (lambda f: edit(f, lambda card: card["models"].pop()), "more numbers"),
    "a model twice": (lambda f: edit(f, lambda card: card["models"].insert(0, card["models"][0])), "damaged"),
    "unknown field": (first(call="system"), "damaged"),
    "widths of text": (first(widths=["16", "16"]), "has widths"),
    "negative width": (first(widths=[16, -16]), "has widths"),
    "huge width": (first(widths=[10**12, 16]), "damaged"),
    "no widths": (first(widths=[]), "has widths"),
    "features beyond": (first(num_features=10**9), "ends inside"),
    "slope not a number": (first(slope=float("nan")), "has slope nan"),
    "slope of text": (first(slope="steep"), "has slope 'steep'"),
    "other slope": (first(slope=2.5), "checksum"),
    "other unit of length": (first(y_scale=1.0), "checksum"),
    "one weight": (lambda f: rewrite(f, weights=bump(read_arrays(f / "arrays.npz")["weights"])), "checksum"),
    "not finite": (lambda f: rewrite(f, weights=np.full(9, np.nan, np.float16)), "out of range"),
    "no such feature": (lambda f: rewrite(f, features=bump(read_arrays(f / "arrays.npz")["features"], D)), "range"),
    "other type": (lambda f: rewrite(f, weights=np.zeros(9)), "of types"),
    "other dimensions": (lambda f: rewrite(f, standards=np.zeros(3, np.float32)), "of types"),
    "an array missing": (lambda f: np.savez(f / "arrays.npz", weights=np.zeros(1, np.float16)), "damaged"),
}


def bump(array: np.ndarray, by: float = 0.5) -> np.ndarray:
    array = array.copy()
    array[0] += array.dtype.type(by)
    return array


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_hostile_files_are_refused(tmp_path, monkeypatch, damage) -> None:
    monkeypatch.chdir(tmp_path)
    folder = small().save(tmp_path / "mine")
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(BayesmatError, match=message):
        library(folder)
    assert not (tmp_path / "mark").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BayesmatError, match="is not a library"):
        small().save(tmp_path)
    with pytest.raises(BayesmatError, match="is not a library"):
        small().save(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.full((60, D), np.nan)}, "must be finite"),
        ({"y": np.ones((60, 1))}, "one value only"),
        ({"y": np.r_[np.arange(40.0), np.full(20, np.nan)][:, None]}, "40 rows"),
        ({"y": np.ones(60)}, "shape"),
        ({"num_models": 0}, "num_models is 0"),
        ({"widths": (4, 16)}, "widths are"),
        ({"widths": (32, 16)}, "widths are"),
        ({"max_rows": 10}, "max_rows is 10"),
        ({"x": np.ones((60, D))}, "all equal"),
    ],
)
def test_bad_training_data_is_named(changed, message) -> None:
    rng = np.random.default_rng(0)
    arguments = {"x": rng.normal(size=(60, D)), "y": rng.normal(size=(60, 1)), "num_models": 1} | changed
    with pytest.raises(BayesmatError, match=message):
        next(ensemble.train_ensemble(arguments.pop("x"), arguments.pop("y"), **arguments, progress=False))


# From structures to a library.


@dataclass(frozen=True)
class Table:
    name: str
    smiles: tuple[str, ...]
    y: np.ndarray
    unit: str = "K"
    sources: tuple[str, ...] = ("a test",)


def _composition(tokens, alphabet):
    return jnp.zeros(4).at[jnp.clip(tokens, 0, 3)].add(1.0)


COMPOSITION = pretraining.Featurizer(FeatureSet("composition", "1", ("end", "a", "b", "c")), _composition)
CHAINS = tuple("C" * a + x + "C" * b for x in ("O", "N", "S", "C(C)(C)") for a in range(1, 7) for b in range(1, 7))
REPEATS = tuple(f"*{text}*" for text in CHAINS)
train = functools.partial(
    pretraining.train_library, featurizer=COMPOSITION, widths=(16, 16), progress=False, licence="CC0-1.0"
)


def numbers(smiles: tuple[str, ...]) -> np.ndarray:
    return np.array([len(text) + 0.1 * text.count("O") for text in smiles])


def test_structures_become_models() -> None:
    molecules = Table("length", (*CHAINS, "C[Hg]C", "nonsense", "CC.CC"), np.r_[numbers(CHAINS), 1, 2, 3])
    repeats = Table("size", REPEATS, numbers(REPEATS), "1", ("one", "two"))
    few = Table("rare", CHAINS[:9], numbers(CHAINS[:9]))
    made = train([molecules, repeats, few], 3, per_atom=["length"])
    assert [(e.property, e.material, e.unit, e.source) for e in made.list()] == [
        ("length", "molecule", "K", "a test"),
        ("size", "polymer", "1", "one; two"),
        ("length_per_atom", "molecule", "K/atom", "a test"),
    ]
    distinct = {chem.canonical(text) for text in CHAINS}
    assert made.list()[0].num_train + made.list()[0].num_held_out == len(distinct)
    assert made.about["structures"] == len(distinct) + len({chem.canonical(text) for text in REPEATS})
    assert made.about["refused"] == {"RDKit cannot read it": 1, "several fragments": 1, "element Hg": 1}
    assert made.about["properties_left_out"] == {"rare": len({chem.canonical(text) for text in CHAINS[:9]})}
    assert made.feature_set == COMPOSITION.feature_set and made.list()[0].licence == "CC0-1.0"


def test_excluded_structures_are_never_seen() -> None:
    """Training with an exclusion, however it is written, is training without those rows, to the last bit."""
    kept, gone = CHAINS[:108], CHAINS[108:]  # ethers, amines and sulfides; hydrocarbons
    poisoned = Table("length", CHAINS, np.r_[numbers(kept), np.full(len(gone), 1e9)])
    other_form = [chem.to_smiles(chem.encode(text, chem.Alphabet.organic(), seed=5).tokens[0], chem.Alphabet.organic())
                  for text in gone]  # fmt: skip
    assert len(set(other_form) - set(gone)) > len(gone) / 2
    made = train([poisoned], 2, exclude=other_form)
    assert made.list() == train([Table("length", kept, numbers(kept))], 2).list()
    assert made.about["excluded"] == len({chem.canonical(text) for text in gone})
    assert made.list() != train([poisoned], 2).list()


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ([], {}, "no property has 50"),
        ([Table("length", CHAINS[:9], numbers(CHAINS[:9]))], {}, "no property has 50"),
        ([Table("length", CHAINS, numbers(CHAINS))], {"exclude": ["nonsense"]}, "'nonsense' cannot be excluded"),
        ([Table("length", CHAINS, numbers(CHAINS))], {"per_atom": ["mass"]}, "no property 'mass'"),
        ([Table("length", CHAINS, numbers(CHAINS)), Table("length", CHAINS, numbers(CHAINS), "m")], {}, "'K' and in"),
        ([Table("length", CHAINS, numbers(CHAINS)[:-1])], {}, "143 values for 144"),
    ],
)
def test_bad_tables_are_named(tables, options, message) -> None:
    with pytest.raises(BayesmatError, match=message):
        train(tables, 1, **options)


def test_an_interrupt_keeps_what_is_done(monkeypatch) -> None:
    def interrupted(*args, **kwargs):
        yield list(trained()[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "train_ensemble", interrupted)
    tables = [Table(name, CHAINS, numbers(CHAINS)) for name in ("a", "b")]
    assert len(train(tables, 9)) == 2


def test_base_features_are_finite_and_named() -> None:
    tokens = chem.encode(["C", "CCO", "c1ccccc1[N+](=O)[O-]"], chem.Alphabet.organic()).tokens
    values = pretraining.COUNTED(tokens, chem.Alphabet.organic())
    assert values.shape == (3, len(pretraining.COUNTED.feature_set.features)) and np.isfinite(values).all()
    mass = list(pretraining.COUNTED.feature_set.features).index("molecular_weight")
    assert np.expm1(values[1, mass]) == pytest.approx(46.07, abs=0.01)


# The command line.


@pytest.fixture
def run(capsys):
    """A call of `bayesmat library ...`: its exit status, standard output and error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["library", *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path, Path]:
    wide, long, excluded = tmp_path / "wide.csv.gz", tmp_path / "long.csv", tmp_path / "excluded.smi"
    rows = [f"{text},{value:.1f},{-value:.2f},word" for text, value in zip(CHAINS, numbers(CHAINS), strict=True)]
    with gzip.open(wide, "wt") as file:
        file.write("\n".join(["smiles,length,depth,note", *rows, "CCO,,1e5,", "CCN, 3 ,inf,", "bad,1,1,"]))
    lines = [f"size,{text},{value},eV" for text, value in zip(REPEATS, numbers(REPEATS), strict=True)]
    long.write_text("\n".join(["what,smiles,value,unit", *lines, "other,CCO,1,K"]))
    excluded.write_text("".join(f"{text}\n" for text in CHAINS[108:]))
    return wide, long, excluded


def test_tables_of_files(files) -> None:
    wide, long, _ = map(str, files)
    tables = {table.name: table for table in read_tables([wide, long], long="what,value,unit")}
    assert list(tables) == ["length", "depth", "other", "size"]  # the column of words is none of numbers
    assert len(tables["length"].y) == len(CHAINS) + 2 and tables["length"].sources == ("wide.csv.gz",)
    assert len(tables["depth"].y) == len(CHAINS) + 2 and np.isfinite(tables["depth"].y).all()
    assert tables["size"].unit == "eV" and tables["size"].smiles == REPEATS
    named = read_tables([wide, long], targets=["depth=m/s", "size"], long="what,value,unit")
    assert [(table.name, table.unit) for table in named] == [("depth", "m/s"), ("size", "eV")]


def test_train_then_list(run, files, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pretraining, "learned", lambda: COMPOSITION)
    wide, long, excluded = files
    folder = tmp_path / "mine"
    command = ["train", wide, long, "--long", "what,value,unit", "--targets", "length=A", "size", "--exclude", excluded,
               "--models", 4, "--keep", 1, "--widths", 8, 16, "--out", folder, "--licence", "CC0-1.0"]  # fmt: skip
    status, said, _ = run(*command)
    assert status == 0 and "2 models" in said and f"Written: {folder}" in said
    assert f"{len({chem.canonical(text) for text in CHAINS[108:]})} excluded" in said
    made = library(folder)
    assert [(e.property, e.unit, e.material, e.source) for e in made.list()] == [
        ("length", "A", "molecule", "wide.csv.gz"),
        ("size", "eV", "polymer", "long.csv"),
    ]
    assert made.feature_set == COMPOSITION.feature_set
    status, said, _ = run("list", folder, "--property", "size")
    assert status == 0 and list(made)[1] in said and list(made)[0] not in said and "1 models" in said
    assert "0 models" in run("list", folder, "--min-r2", 2)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "nowhere"], "nowhere holds no library"),
        (["train", "--models", "1", "--out", "x"], "nothing to train on"),
        (["train", "WIDE", "--targets", "mass", "--models", "1", "--out", "x"], "column of numbers 'mass'"),
        (["train", "WIDE", "--smiles", "SMILES", "--models", "1", "--out", "x"], "its columns are smiles, length"),
        (["train", "WIDE", "--long", "value", "--models", "1", "--out", "x"], "allowed are NAME,VALUE"),
        (["train", "missing.csv", "--models", "1", "--out", "x"], "cannot be read"),
        (["train", "WIDE", "--models", "0", "--out", "x"], "num_models is 0"),
        (["train", "WIDE", "--models", "1", "--keep", "0", "--out", "x"], "--keep is 0"),
        (["train", "WIDE", "--models", "1", "--out", "."], "is not a library"),
        (["train", "WIDE", "--models", "1", "--exclude", "WIDE", "--smiles", "note", "--out", "x"], "'word'"),
        (["train", "--tables", "mass", "--models", "1", "--out", "x"], "no property 'mass'"),
    ],
)
def test_bad_commands_are_named(run, files, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, error = run(*(str(files[0]) if word == "WIDE" else word for word in arguments))
    assert status == 2 and message in error
    assert not (tmp_path / "x").exists()
