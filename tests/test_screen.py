"""Screening loses no row and invents none: killed and resumed, on full disks, on hostile rows, encoded or not."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import screening
from enumeration import tiny_prior
from screening import ALPHABET, TARGETS, model, same_bits, same_but_for_rounding, table, write_library

from bayesmat import BayesmatError, chem, design, prior
from bayesmat.design._screening import _screen, _shards
from bayesmat.design._screening._score import Scorer

NUM = 4500
SCRIPT = Path(screening.__file__)


def start(folder: Path, library: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(library), *more],
        **{"env": os.environ | {"JAX_PLATFORMS": "cpu"}, "stderr": subprocess.PIPE, "text": True},
    )


def finish(process: subprocess.Popen[str], code: int) -> str:
    _, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    return error


def children_of(process: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += task.read_text().split()
        except OSError:
            continue
    return found


def is_reader(process: str) -> bool:
    try:
        return "serve()" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


def to(folder, library, fits=None, targets=None, **options):
    fits = [model()] if fits is None else fits
    return design.screen_to(folder, library, fits, targets or TARGETS, **{"workers": 0, "shard_rows": 1024, **options})


def rows(library, fits=None, targets=None, **options) -> pa.Table:
    batches = design.screen(library, fits or [model()], targets or TARGETS, **{"workers": 0, **options})
    return pa.Table.from_batches(list(batches))


def check(found: pa.Table, num: int, name: str = "k") -> None:
    """Each row once, and what it must have."""
    columns = {key: found.column(key).to_numpy(zero_copy_only=False) for key in found.schema.names}
    np.testing.assert_array_equal(columns["row"], np.arange(1, num + 1))
    scored, again = ~np.isnan(columns["p_hit"]), ~np.isnan(columns["duplicate_of"].astype(float))
    refused = np.array([text is not None and len(text) > 3 for text in columns["reason"]], bool)
    assert (scored.astype(int) + again + refused == 1).all()
    numbers = [key for key in found.schema.names if found.schema.field(key).type == pa.float32()]
    for key in numbers:
        assert np.isfinite(columns[key][scored]).all() and np.isnan(columns[key][~scored]).all(), key
    low, middle, high = (columns[f"{name}_q{q}"][scored] for q in ("05", "50", "95"))
    assert (low <= middle).all() and (middle <= high).all() and (columns[f"{name}_sd"][scored] >= 0).all()
    for key in ("p_hit", "applicability", f"{name}_p_target", f"{name}_applicability"):
        assert (columns[key][scored] >= 0).all() and (columns[key][scored] <= 1).all(), key
    texts = columns["smiles"]
    assert all((texts[i] is not None) for i in np.flatnonzero(scored | again))
    for i in np.flatnonzero(again):
        first = int(columns["duplicate_of"][i]) - 1
        assert first < i and texts[first] == texts[i] and not again[first]
    assert len(set(texts[~again & (texts != None)])) == (~again & (texts != None)).sum()  # noqa: E711
    for text, smiles in zip(columns["text"][refused], texts[refused], strict=True):
        assert smiles is not None if text is None else len(text) <= 200


# Kills and full disks


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return write_library(tmp_path_factory.mktemp("library") / "mine.smi.gz", NUM)


@pytest.fixture(scope="module")
def whole(library, tmp_path_factory) -> pa.Table:
    folder = tmp_path_factory.mktemp("whole") / "out"
    counts = to(folder, library)
    found = table(folder)
    check(found, NUM)
    assert counts.rows == NUM and counts.duplicates > 100 and len(counts.reasons) == 5
    assert counts.scored + counts.duplicates + counts.set_aside == NUM
    assert counts.scored == NUM - found.column("p_hit").null_count
    return found


def test_killed_twice_and_resumed_equals_an_uninterrupted_run(tmp_path, library, whole):
    """First between a shard and its entry in the manifest, then between a shard's last byte and its name."""
    folder = tmp_path / "out"
    finish(start(folder, library, "--kill-at", "5"), -signal.SIGKILL)
    names = sorted(path.name for path in folder.iterdir() if path.suffix == ".parquet" and path.name[0] != ".")
    assert len(names) == 2 and len(json.loads((folder / "manifest.json").read_text())["shards"]) == 1
    process, readers = start(folder, library, "--resume", "--kill-at", "3", "--workers", "1"), set()
    while process.poll() is None:
        readers |= {child for child in children_of(process.pid) if is_reader(child)}
        time.sleep(0.02)
    finish(process, -signal.SIGKILL)
    assert len([path for path in folder.iterdir() if path.name[0] == "."]) == 1
    with pytest.raises(BayesmatError, match="holds results; go on with --resume"):
        to(folder, library)
    counts = to(folder, library, resume=True)
    assert same_bits(table(folder), whole) and counts.rows == NUM
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        *(f"part-{i:06d}.parquet" for i in range(5)),
    ]
    assert to(folder, library, resume=True) == counts  # nothing is left to be done
    until = time.monotonic() + 60
    while any(map(is_reader, readers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(readers) == 1 and not any(map(is_reader, readers))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_ten_random_moments(tmp_path, workers):
    library = write_library(tmp_path / "mine.smi", 10_000)
    finish(start(tmp_path / "whole", library, "--workers", workers), 0)
    expected, rng, kills, done, folder = table(tmp_path / "whole"), random.Random(int(workers)), 0, 0, tmp_path / "out"
    check(expected, 10_000)
    while kills < 10 or not done:
        process = start(folder, library, "--resume", "--workers", workers)
        before = num_listed(folder)
        while kills < 10 and num_listed(folder) == before and process.poll() is None:
            time.sleep(0.002)  # until it reached the first shard, and then a moment longer
        time.sleep(rng.uniform(0, 0.7))
        if kills < 10:
            process.kill()
        process.communicate(timeout=300)  # the processes that read have ended too, or this would not
        assert process.returncode in (0, -signal.SIGKILL)
        kills += process.returncode != 0
        if process.returncode == 0:
            assert same_bits(table(folder), expected)
            folder, done = tmp_path / f"out-{kills}", done + 1


def num_listed(folder: Path) -> int:
    manifest = folder / "manifest.json"
    return len(json.loads(manifest.read_text())["shards"]) if manifest.exists() else -1


def limited(limit: int, call):
    """A call during which no file can have more bytes, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        return call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_full_disk_ends_clearly_and_is_resumed(tmp_path, library, whole):
    folder = tmp_path / "out"
    to(folder, library)
    sizes = [path.stat().st_size for path in sorted(folder.glob("part-*"))]
    shutil.rmtree(folder)
    first, biggest = sizes[0], max(sizes)
    assert first < biggest
    with pytest.raises(BayesmatError, match="the disk is full; what is complete is kept: go on with --resume"):
        limited((first + biggest) // 2, lambda: to(folder, library))
    assert 1 <= len(json.loads((folder / "manifest.json").read_text())["shards"]) < 5
    assert not [path for path in folder.iterdir() if path.name[0] == "."]
    to(folder, library, resume=True)
    assert same_bits(table(folder), whole)


# Duplicates, encoded libraries, draws


def test_duplicates_are_molecules_not_strings(tmp_path):
    texts = screening.molecules(2100)
    texts[1050:1053] = ["C1=CC=CC=C1O", "OC", "C[C@H](F)Cl"]
    texts[2080:2084] = ["c1ccccc1O", "CO", "C[C@@H](Cl)F", "[CH3]O"]
    first = {text: row for row, text in reversed(list(enumerate(map(chem.canonical, texts), 1)))}
    expected = [first[chem.canonical(text)] for text in texts]
    found = rows(texts)
    check(found, 2100)
    again = found.column("duplicate_of").to_pylist()
    assert [place or row for row, place in enumerate(again, 1)] == expected
    assert again[2080:2084] == [1051, 1052, 1053, 1052]


def test_encoded_library_gives_what_text_gives(tmp_path, library, whole):
    counts = design.encode_library(tmp_path / "tokens", library, ALPHABET, workers=0, shard_rows=2048)
    assert counts.rows == NUM and counts.duplicates == NUM - whole.column("duplicate_of").null_count
    encoded = design.Encoded(tmp_path / "tokens")
    together = rows(tmp_path / "tokens")  # more of them at once, so short strings run through a program of their own
    assert encoded.estimate() == NUM and same_but_for_rounding(together, whole)
    to(tmp_path / "out", encoded)
    assert same_bits(table(tmp_path / "out"), whole)
    for skip in (0, 5, 1024, 2048, 2100, NUM - 1, NUM):
        assert sum(map(len, encoded.batches(skip))) == NUM - skip
        assert next((batch["row"][0].as_py() for batch in encoded.batches(skip)), NUM + 1) == skip + 1
    with pytest.raises(BayesmatError, match="is encoded already"):
        design.encode_library(tmp_path / "again", encoded, ALPHABET)
    other = model(alphabet=chem.Alphabet.organic(61))
    for call in (design.screen, lambda *_: to(tmp_path / "other", encoded, [other])):
        with pytest.raises(BayesmatError, match="was encoded for other models; encode it with --model"):
            call(encoded, [other], TARGETS)
    assert not (tmp_path / "other").exists()
    card = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    for spoiled, message in (({"complete": False}, "is not complete; go on"), ({"plan": {}}, "manifest is damaged")):
        (tmp_path / "tokens" / "manifest.json").write_text(json.dumps(card | spoiled))
        with pytest.raises(BayesmatError, match=message):
            design.screen(tmp_path / "tokens", [model()], TARGETS)


def test_short_strings_run_through_a_program_of_their_own():
    """Whichever program a row goes through, its numbers are the same."""
    scorer = Scorer({"k": model()}, TARGETS)
    smiles = ["C" * n + end for n in range(1, 45) for end in ("", "O", "N", "=O", "Br", "c1ccccc1")] * 9
    tokens = chem.encode(smiles, ALPHABET).tokens.astype(np.uint8)
    widths, parts = zip(*scorer._by_width(tokens), strict=True)
    assert widths == (30, 60) and sorted(np.concatenate(parts)) == list(range(len(tokens)))
    assert not tokens[parts[0], 30:].any() and tokens[parts[1], 30:].any(axis=1).all()
    found = scorer(tokens)
    apart = [scorer(tokens[start : start + 500]) for start in range(0, len(tokens), 500)]  # too few for two programs
    assert len(scorer._by_width(tokens[:500])) == 1 and found["fits"].all()
    for name, column in found.items():
        np.testing.assert_allclose(column, np.concatenate([part[name] for part in apart]), rtol=1e-4, atol=1e-6)


def test_draws_of_a_prior_depend_on_their_seed_alone():
    tiny = tiny_prior()

    def texts(num, seed, skip=0):
        batches = design.Drawn(tiny, num, seed).batches(skip)
        return [text for batch in batches for text in batch.column("text").to_pylist()]

    drawn = texts(5000, 1)
    assert len(drawn) == 5000 and texts(4500, 1) == drawn[:4500] and texts(5000, 1, 4100) == drawn[4100:]
    assert texts(5000, 2) != drawn and set(drawn[:4096]) != set(drawn)
    other = prior.NGram(tiny, tiny.alphabet)  # its arrays have the names of tables
    assert design.Drawn(tiny, 10).identity() == design.Drawn(other, 10).identity()
    other.factor = other.factor * 2
    assert design.Drawn(tiny, 10).identity() != design.Drawn(other, 10).identity()
    with pytest.raises(BayesmatError, match="0 draws of the prior; 1 or more"):
        design.Drawn(tiny, 0)
    found = rows(design.Drawn(tiny, 300))
    check(found, 300)
    assert found.column("duplicate_of").null_count < 150 and not any(found.column("reason").to_pylist())


# Errors


def test_what_does_not_fit_together():
    k, other = model(), model("rho", chem.Alphabet.organic(61))
    wide = {"rho": design.Above(1.0)}
    for fits, targets, message in (
        ([], TARGETS, "one model or more"),
        ([k], {}, "targets are of none"),
        ([k], wide, "targets are of rho; needed is one or more of the models' k"),
        ([k, other], TARGETS | wide, "models k, rho do not read the same molecules"),
        ([k, model()], TARGETS, "two models are of k; give them names"),
    ):
        with pytest.raises(BayesmatError, match=message):
            design.screen(["CCO"], fits, targets)  # at once, not with the first row
    for options, message in (({"workers": -1}, "workers is -1; allowed are 0"), ({"shard_rows": 0}, "shard_rows is 0")):
        with pytest.raises(BayesmatError, match=message):
            to("nowhere", ["CCO"], **options)


def test_a_folder_is_not_taken_for_another(tmp_path, library):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in (".bashrc", ".hidden.json", "thesis.tex"):
        (folder / name).write_text("mine")
        with pytest.raises(BayesmatError, match="is not empty and holds no results"):
            to(folder, ["CCO"], resume=True)
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    with pytest.raises(BayesmatError, match="nothing can be written there"):
        to(library / "out", ["CCO"])
    with pytest.raises(BayesmatError, match="the library has no rows"):
        to(folder, [])
    to(folder, ["CCO"])  # which left nothing that had to be kept


def test_resumed_only_with_the_same(tmp_path):
    folder, texts = tmp_path / "out", screening.molecules(40)
    path = tmp_path / "a.smi"
    path.write_text("\n".join(texts))
    to(folder, path)
    both = [model(), model("rho")]
    for library, fits, targets, options, what in (
        (texts, None, None, {}, "other library;"),
        (path, [model(scale=2.0)], None, {}, "other models;"),
        (path, both, None, {}, "other models;"),
        (path, None, {"k": design.Above(0.2)}, {}, "other targets;"),
        (path, None, None, {"shard_rows": 2048}, "other shard rows;"),
        (texts, [model(scale=2.0)], {"k": design.Below(0.1)}, {}, "other library, other models, other targets;"),
    ):
        with pytest.raises(BayesmatError, match=f"holds results of another run: {what} name another folder"):
            to(folder, library, fits, targets, resume=True, **options)
    os.utime(path, (0, 0))
    with pytest.raises(BayesmatError, match="other library"):
        to(folder, path, resume=True)
    with pytest.raises(BayesmatError, match="manifest is of another kind or version than 'encoded'"):
        design.encode_library(folder, texts, ALPHABET, resume=True)
    with pytest.raises(BayesmatError, match="manifest is of another kind or version than 'encoded'"):
        design.screen(folder, [model()], TARGETS)


def test_damaged_results(tmp_path):
    folder, texts = tmp_path / "out", screening.molecules(1100)
    to(folder, texts)
    manifest, shard = folder / "manifest.json", folder / "part-000000.parquet"
    card, data = json.loads(manifest.read_text()), shard.read_bytes()
    elsewhere = [card["shards"][0] | {"name": "../out/part-000000.parquet"}]
    spoiled = [{"shards": [{}]}, {"shards": 3}, {"plan": None}, {"format": 9}, {"shards": elsewhere}]
    for text in ("", "[]", "{}", "\0", '"x"', json.dumps(card)[:-20], *(json.dumps(card | part) for part in spoiled)):
        manifest.write_text(text)
        with pytest.raises(BayesmatError, match="damaged|another kind or version|is missing"):
            to(folder, texts, resume=True)
    manifest.write_text(json.dumps(card))
    shard.write_bytes(data[:-100])
    with pytest.raises(BayesmatError, match="damaged, it has not the .* bytes of the manifest"):
        to(folder, texts, resume=True)
    manifest.write_text(json.dumps(card | {"complete": False}))
    shard.write_bytes(data[:4] + bytes(len(data) - 4))
    with pytest.raises(BayesmatError, match="part-000000.parquet: damaged"):
        to(folder, texts, resume=True)
    shard.unlink()
    with pytest.raises(BayesmatError, match="part-000000.parquet is missing"):
        to(folder, texts, resume=True)
    with pytest.raises(BayesmatError, match="10 rows, but 5 scored, 3 duplicates and 1 set aside: the results are"):
        _shards.Counts(10, 5, 3, {"radical": 1}).check()


def test_shards_are_cut_anywhere():
    batches = [pa.record_batch({"row": np.arange(start, stop)}) for start, stop in ((0, 3), (3, 4), (4, 9))]
    for rows_ in range(1, 10):
        left, right = _screen._cut(batches, rows_)
        assert sum(map(len, left)) == rows_
        together = [value for batch in left + right for value in batch["row"].to_pylist()]
        assert together == list(range(9)) and all(map(len, left + right))


def test_predictions_that_are_no_numbers(tmp_path):
    """Beyond the range of float32: the molecule is set aside, not written as infinite."""
    found = rows(screening.molecules(30), [model(scale=float("inf"))])
    check(found, 30)
    assert set(found.column("reason").to_pylist()) >= {"the prediction is not a number"}


def test_two_models_and_no_target_for_one():
    fits = {"a": model(), "b": model("rho", scale=-1.0)}
    found = rows(screening.molecules(20), fits, {"a": design.Interval(0.05, 0.2)})
    check(found, 20, "a")
    assert "b_p_target" not in found.schema.names and found.schema.field("b_mean").metadata == {b"unit": b"W/m/K"}
    np.testing.assert_allclose(found["p_hit"].to_numpy(), found["a_p_target"].to_numpy())


# Hostile rows


PIECES = [
    *(
        "C",
        "c",
        "N",
        "n",
        "O",
        "[",
        "]",
        "(",
        ")",
        "=",
        "#",
        "/",
        "\\",
        "\\\\",
        "@",
        "1",
        "%10",
        "%(100)",
        "-",
        "+",
        "[nH]",
    ),
    *(
        "[C@H]",
        "[C@AL1]",
        "[2H]",
        "[CH3:1]",
        "[O-]",
        "[N+]",
        "Cl",
        "*",
        ".",
        "->",
        "$",
        "~",
        ":",
        "{",
        "é",
        "\x00",
        " ",
    ),
    *("\t", "\u2028", "\u00a0", "👩‍🔬", "\ud800", "\udce9", "'", '"', ",", "=cmd|' /C calc'!A0", "|", "<b>"),
]
HOSTILE = [
    *(
        "C(" * 5000,
        "[" * 9999,
        "(" * 1990,
        "C" * 10**6,
        "[" * 1999,
        "C1" + "23456789" * 200,
        "C%11" * 450,
        "C" + "(F)" * 600,
    ),
    "C(" * 990 + "C" + ")" * 990,
    "".join(f"C%{digit}" for digit in range(10, 100)) * 2,
    "c12c3c4c5c1c1c6c7c2c2c8c3c3c9c4c4c%10c5c5c1c1c6c6c%11c7c2c2c7c8c3c3c8c9c4c4c9c%10c5c5c1c1c6c6c%11c2c2c7c3c3c8c4c4c9"
    "c5c1c1c6c2c3c41",
    "C12C3C4C1C5C2C3C45",
    "C12C3C4C5C1C6C7C2C8C3C9C4C1C5C6C2C7C8C9C12",
    "C1CC1" * 300,
    "c1" + "cc" * 300 + "c1",
    "n1" + "nn" * 99 + "n1",
    *(
        "=1+1",
        "@SUM(A1)",
        '=HYPERLINK("http://a")',
        "<script>alert(1)</script>",
        "None",
        "nan",
        "\0",
        "",
        " ",
        "\ufeffCC",
    ),
]


def fuzzed(num: int, seed: int) -> list[str]:
    """SMILES, mutated SMILES, and what never was one."""
    rng = random.Random(seed)
    good = [
        *screening.molecules(max(300, num // 4)),
        *("C[C@H](N)C(=O)O", "F/C=C/F", "c1ccccc1[N+](=O)[O-]", "O=c1cc[nH]cc1", "[13CH4]", "C1=C\\C/C=C\\CC/C=C\\1"),
        *("CC(C)(C)OC(=O)N1CCC(CC1)c1ccc(Cl)cc1", "CS(=O)(=O)c1nc2ccccc2[nH]1"),
    ]
    out = []
    for _ in range(num):
        kind = rng.random()
        text = rng.choice(good)
        if kind < 0.02:
            text = rng.choice(HOSTILE)
        elif kind < 0.1:
            text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(30)))
        elif kind < 0.8:
            for _ in range(rng.choice((1, 1, 2, 4))):
                i, j = sorted(rng.randrange(len(text) + 1) for _ in range(2))
                text = rng.choice((text[:i] + rng.choice(PIECES) + text[i:], text[:i] + text[j:], text[:j] + text[i:]))
        out.append(text)
    return out


def test_hostile_rows():
    texts = HOSTILE + fuzzed(4000, 0)
    began = time.process_time()
    found = rows(texts)
    assert time.process_time() - began < 60  # none of them stalls
    check(found, len(texts))
    reasons = found.column("reason").to_pylist()
    counts = _shards.count([found], "p_hit")
    counts.check()
    assert counts.scored > 500 and counts.duplicates > 100 and 12 < len(counts.reasons) < 100
    assert set(reasons) >= {"longer than 2000 characters", "control character", "empty string", "RDKit cannot read it"}
    right = chem.canonicalize(texts).smiles
    mine = found["smiles"].to_pylist()
    assert not [pair for pair in zip(texts, mine, right, strict=True) if pair[1] not in (None, pair[2])]


@pytest.mark.slow
def test_a_hundred_thousand_hostile_rows(tmp_path):
    num = 100_000
    path = tmp_path / "hostile.parquet"
    texts = [text.encode("utf-8", "replace").decode() for text in fuzzed(num, 1)]
    pq.write_table(pa.table({"smiles": texts, "name": texts[::-1]}), path)
    counts = to(tmp_path / "out", path, smiles="smiles", name="name", workers=2, shard_rows=16384)
    check(table(tmp_path / "out"), num)
    assert counts.rows == num and counts.scored > 10_000 and len(counts.reasons) < 200
    assert STALLED_OR_CRASHED.isdisjoint(counts.reasons)


STALLED_OR_CRASHED = {"the reader crashed on it", "took too long to read"}


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path):
    """200,000 rows that are nowhere until they are read, and every one another molecule."""
    num, grown = 200_000, []

    class Made(design.Listed):
        def estimate(self):
            return num

        def rows(self):
            for index, text in zip(range(num), endless(), strict=False):
                yield None, index + 1, "a name", text, ""

    def endless():
        middles = ["", "O", "N", "S", "OC", "NC", "C(C)", "C(F)", "C(=O)", "C(Cl)", "C#C", "C=C", "SC", "C(O)"]
        for i in range(1, 15):
            for a in middles:
                for b in middles:
                    for c in middles:
                        for d in middles:
                            yield "C" * i + a + "C" + b + "CC" + c + "C" + d + "F"

    for number, batch in enumerate(design.screen(Made([]), [model()], TARGETS, workers=0)):
        assert len(batch) <= 1024
        if number % 20 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            grown.append(pages * resource.getpagesize() / 2**20)
    assert len(grown) >= 9 and grown[-1] - grown[2] < 60, grown
