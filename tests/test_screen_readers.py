"""What comes before the models: libraries as rows, rows as tokens, processes that may die, and what was met before."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import os
import random
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import screening
from hypothesis import given, settings, strategies as st
from test_screen import fuzzed, limited

from bayesmat import BayesmatError, chem, data, design
from bayesmat.design._screening import _encode, _readers, _screen, _seen, _sources
from bayesmat.design._screening._readers import CRASHED, STALLED, Readers

ALPHABET = chem.Alphabet.organic()


def texts_of(source, skip: int = 0) -> list[str]:
    return [text for batch in source.batches(skip) for text in batch["text"].to_pylist()]


def raw_of(source) -> pa.Table:
    return pa.Table.from_batches(list(source.batches()), _sources.RAW)


# Reading a structure once, the fast way


UNUSUAL = [
    *r"""
    C[C@H](F)Cl C[C@@](F)(Cl)Br [C@TH1](C)(N)(O)F [C@TH3](C)(N)(O)F CC=[C@AL1]=CC F[Pt@SP1](Cl)(Br)I [CH@](C)F
    F[P@TB3](Cl)(Br)(I)C [Fe@OH5](C)(N)(O)(F)(Cl)Br C[S@](=O)CC C[S@@+]([O-])CC C[Si@H](F)Cl [C@@@](C)(N)(O)F
    F/C=C/F F/C=C\F C(/F)=C/F F/C=C/1CCCC/1 C1=C\CC/C=C\CC/1 c1ccccc1/C=C/c1ccccc1 c1cc[nH]c/1 c1ccccc1/c1ccccc1
    C\\C=C\\C C//C /C=C C/ C/l [C/H3] [N\H2]C C%1/0CC%10 C1/2CC1CC2 C/=C */C=C/*
    [13CH4] [2H]OC [H]OC [H][H] [H+] [H]/C(F)=C/F [CH3:1]O [C:1] C[13C@H](F)Cl [2H]C([2H])F [1*]CC[2*]
    [CH3] [O] C[O] [CH2]C[CH2] [NH3] [CH4] [OH2] [BH4-] [NH4+] [C-]#[O+] [O-]C [Cl-] [Xe] [U] [#6]C
    [nH]1cccc1 n1cccc1 c1cc[nH]c1 O=c1cc[nH]cc1 [nH]1c2ccccc2nc1 c1cc[pH]c1 [se]1cccc1 [te]1cccc1 c1cccc1
    [cH-]1cccc1 [n+]1ccccc1 [nH+]1ccccc1 c1cc[n+]([O-])cc1 b1ccccc1 o1cccc1 [o+]1ccccc1 b1=CC=CC=[N+]1[O-]
    CN(=O)=O C[N+](=O)[O-] CP(F)(F)(F)F S(F)(F)(F)(F)(F)F I(F)(F)F C[N](C)(C)C OCl(=O)(=O)=O CS(C)=O
    N->B N/>B C~C c1cc[nH]~c/1 C:C C$C C=1CC=1 C=1CC1 C1CC=1 C#1CC1 C11 C1 C%(100)CC%(100) C12CC1C2
    *CC* *C* ** *C(*)* [*]CC[*] * C* *c1ccc(*)cc1 C( C) (C) C()C C(=)C C(C) CC(C) C.C [Na+].[Cl-]
    """.split(),
    *("", " ", "CC O", "CC\t", " CC", "C\0C", "\ufeffCC", "éF", "Fé", "F\u2028", "C\ud800", "C\udce9", "C" * 2001),
    *("C" * 90, "C(" * 9 + "C" + ")C" * 9),
]


def agree(texts, alphabet):
    """`read` says of each structure what `canonicalize` and `encode` say; gives how many all of them take."""
    found, right, encoded = chem.read(texts, alphabet), chem.canonicalize(texts), chem.encode(texts, alphabet)
    spoken = {refusal.index: refusal.reason for refusal in encoded.refusals}
    for index, text in enumerate(texts):
        canonical, reason = found.smiles[index], found.reasons[index]
        if right.reasons[index] is not None:
            assert (canonical, reason) == (None, right.reasons[index]) and spoken[index] == reason, text
        elif spoken.get(index) != "no Kekulé form":  # the canonical form of some rings with boron cannot be read again
            assert canonical == right.smiles[index], text
            if reason is not None:
                assert reason == spoken[index] and not found.tokens[index].any(), text
            elif index in spoken:
                assert spoken[index] == chem.does_not_fit(alphabet), text
            else:
                assert chem.canonical(chem.to_smiles(found.tokens[index], alphabet)) == canonical, text
    return len(encoded.kept)


@pytest.mark.parametrize("alphabet", [ALPHABET, chem.Alphabet.polymer()], ids=["organic", "polymer"])
def test_read_agrees_on_unusual_structures(alphabet):
    assert agree(UNUSUAL, alphabet) > (4 if alphabet.attachments else 40)


def test_read_agrees_on_the_corpus_and_on_mutations():
    organic = random.Random(0).sample(data.corpus("organic").smiles, 1500)
    assert agree([*organic, *fuzzed(2000, 7)], ALPHABET) > 1800


def test_read_agrees_on_repeat_units():
    alphabet = chem.Alphabet.polymer()
    drawn = np.asarray(chem.random_strings(jax.random.key(0), 200, alphabet))
    assert agree([chem.to_smiles(tokens, alphabet) for tokens in drawn], alphabet) > 100


@pytest.mark.slow
def test_read_agrees_on_zinc(shared_data):
    with gzip.open(shared_data / "zinc250k.csv.gz", "rt") as file:
        texts = [row["smiles"].strip() for row in csv.DictReader(file)]
    assert agree(random.Random(1).sample(texts, 40_000), ALPHABET) > 39_000
    with gzip.open(shared_data / "smipoly_polymers.csv.gz", "rt") as file:
        texts = [row["smiles"] for row in csv.DictReader(file)]
    assert agree(random.Random(1).sample(texts, 10_000), chem.Alphabet.polymer()) > 9_000


def test_a_string_can_be_too_long_for_the_grammar_alone():
    """Its tokens fit the array, but the grammar keeps more in reserve: this is why scores come with `fits`."""
    cubane = "C12C3C4C1C5C4C3C25"
    num = int((chem.read([cubane], ALPHABET).tokens != 0).sum())
    tight = chem.Alphabet.organic(num)
    assert chem.read([cubane], tight).reasons == [None]
    assert chem.encode([cubane], tight).refused == {f"does not fit {num} tokens": 1}


# Files


GOOD = ["CCO", "c1ccccc1O", "CC(=O)N", "C[C@H](F)Cl", "OCC", "FC(F)F"]


def csv_text(names, **options) -> str:
    out = io.StringIO()
    csv.writer(out, **options).writerows([["id", "smiles"], *zip(names, GOOD, strict=True)])
    return out.getvalue()


def test_every_kind_of_file(tmp_path):
    names = ["plain", "=cmd|' /C calc'!A0", "<script>", 'quo"te', "two\nlines", "comma, é 👩"]
    ids = ["plain", "b", "c d", "", "'", "é"]
    smi = "\n".join(f"{text}\t{name}" for text, name in zip(GOOD, ids, strict=True)).encode()
    frame = {"id": names, "smiles": GOOD}
    written = {
        "a.csv": csv_text(names).encode(),
        "b.csv": b"\xef\xbb\xbf" + csv_text(names, lineterminator="\n").encode(),
        "c.tsv": csv_text(names, delimiter="\t").encode(),
        "d.CSV.gz": gzip.compress(csv_text(names, lineterminator="\r", quoting=csv.QUOTE_ALL).encode()),
        "e.smi": smi,
        "f.smiles": b"\xef\xbb\xbf" + smi.replace(b"\n", b"\r\n") + b"\r\n",
        "g.txt.gz": gzip.compress(smi[:20]) + gzip.compress(smi[20:]),
    }
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    for index, (kind, at_once) in enumerate(
        ((pa.string(), 2), (pa.large_string(), 6), (pa.dictionary(pa.int8(), pa.string()), 3))
    ):
        table = pa.table(frame).set_column(1, "smiles", pa.array(GOOD).cast(kind))
        pq.write_table(table, tmp_path / f"h{index}.parquet", row_group_size=at_once)
    for path in sorted(tmp_path.iterdir()):
        plain = path.name[0] in "efg"
        source = design.Files([path], *(() if plain else ("smiles", "id")))
        found = raw_of(source)
        assert found["text"].to_pylist() == GOOD and found["name"].to_pylist() == (ids if plain else names), path
        assert found["row"].to_pylist() == [1, 2, 3, 4, 5, 6] and set(found["file"].to_pylist()) == {path.name}
        assert texts_of(source, 4) == GOOD[4:] and texts_of(source, 6) == [] and not any(found["reason"].to_pylist())
    (tmp_path / ".hidden.csv").write_text("nothing")
    (tmp_path / "readme.md").write_text("nothing")
    (tmp_path / "folder.csv").mkdir()
    both = raw_of(design.Files([tmp_path], "smiles", "id"))
    assert both["text"].to_pylist() == GOOD * 10 and both["row"].to_pylist() == list(range(1, 61))
    assert list(dict.fromkeys(both["file"].to_pylist())) == [*written, "h0.parquet", "h1.parquet", "h2.parquet"]


def test_standard_input(monkeypatch):
    for options, content in (((), b"CCO a\nCCN b\n"), (("smiles", "id"), b"id,smiles\na,CCO\nb,CCN\n")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        source = design.Files(["-"], *options)
        assert source.estimate() is None
        found = raw_of(source)
        assert found["text"].to_pylist() == ["CCO", "CCN"] and found["name"].to_pylist() == ["a", "b"]


def test_broken_files_are_named(tmp_path):
    def put(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    table = csv_text(GOOD).encode()
    frame = pa.table({"smiles": ["CCO"], "n": [1], "bytes": [b"CCO"]})
    pq.write_table(frame, tmp_path / "p.parquet")
    packed = gzip.compress(("CCO\n" + "".join(fuzzed(99, 1)[:50])).encode("utf-8", "replace") * 2000)
    (tmp_path / "empty").mkdir()
    cases = [
        (tmp_path / "none.csv", "smiles", "there is no such file or folder"),
        (tmp_path / "empty", None, r"no library in this folder; allowed are files in \.smi, .*\(\.gz\)"),
        (put("a.xlsx", b"PK"), None, "not a library; allowed are files in"),
        (put("a.csv", table), None, "say which column has the structures; its columns are id, smiles"),
        (put("a.csv", table), "SMILES", "no column 'SMILES'; its columns are id, smiles"),
        (put("b.csv", b"smiles,smiles\nC,C\n"), "smiles", "more than one column 'smiles'"),
        (put("c.csv", b""), "smiles", "the file is empty; a header line is needed"),
        (put("d.csv", b'"smiles\nC\n'), "smiles", "a quote is opened and never closed"),
        (put("e.csv.gz", table), "smiles", "cannot be read"),
        (put("p.parquet.gz", b"PAR1 no"), "smiles", "cannot be read as Parquet"),
        (put("q.parquet", (tmp_path / "p.parquet").read_bytes()[:-9]), "smiles", "cannot be read as Parquet"),
        (tmp_path / "p.parquet", None, "say which column has the structures; its columns are smiles, n, bytes"),
        (tmp_path / "p.parquet", "x", "no column 'x'; its columns are smiles, n, bytes"),
        (tmp_path / "p.parquet", "n", "column 'n' has the type int64; structures are text"),
        (tmp_path / "p.parquet", "bytes", "column 'bytes' has the type binary; structures are text"),
        (Path("x" * 5000), None, "cannot be read|there is no such"),
    ]
    for path, column, message in cases:
        with pytest.raises(BayesmatError, match=message) as raised:
            design.Files([path], column)
        assert str(path) in str(raised.value)
    with pytest.raises(BayesmatError, match="no column 'nom'; its columns are id, smiles"):
        design.Files([tmp_path / "a.csv"], "smiles", "nom")
    source = design.Files([put("cut.smi.gz", packed[:-400])])
    begun = []
    with pytest.raises(BayesmatError, match=r"cut\.smi\.gz: cannot be read"):
        begun += source.batches()
    assert begun and source.estimate() > 0
    for wrong in (put("wrong.smi.gz", b"CCO\n" * 9), tmp_path / "e.csv.gz"):
        with pytest.raises(BayesmatError, match="cannot be read"):
            _sources._estimate(wrong)
    with pytest.raises(BayesmatError, match="1 names of 2 structures"):
        design.Listed(["C", "CC"], ["a"])


def test_parquet_with_holes_and_wrong_text(tmp_path):
    bad = pa.Array.from_buffers(
        pa.string(), 3, pa.array(["CCO", "Cxx", "CCN"]).buffers()[:2] + [pa.py_buffer(b"CCOC\xe9xCCN")]
    )
    for kind in (pa.string(), pa.dictionary(pa.int32(), pa.string())):
        column = (
            bad if pa.types.is_string(kind) else pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), bad)
        )
        pq.write_table(pa.table({"s": column, "id": [1.5, None, 3.0]}), tmp_path / "a.parquet")
        found = raw_of(design.Files([tmp_path / "a.parquet"], "s", "id"))
        assert found["text"].to_pylist() == ["CCO", "C\\xe9x", "CCN"] and found["name"].to_pylist() == [
            "1.5",
            None,
            "3.0",
        ]
        assert found["reason"].to_pylist() == [None, "not UTF-8 text", None]
    pq.write_table(pa.table({"s": pa.array([None, "CC", None])}), tmp_path / "a.parquet")
    encoded = _encode.encode_batch(next(design.Files([tmp_path / "a.parquet"], "s").batches()), ALPHABET)
    assert encoded["reason"].to_pylist() == ["empty string", None, "empty string"]


LINES = st.one_of(
    st.sampled_from(
        [
            *(b"CCO,1", b'"CC\nO",2', b'CC"O,2', b'"CCO,3', b'C""C,4', b'"C""C",5', b'"CCO"x,6', b"", b"CCO", b",,"),
            *(b"C,\xe9", b"\xe9,1", b"\x00C,1", b"\xef\xbb\xbfC,1", b'"', b'""', b'b","c', b"CCO,<b>", b"=1+1,=1"),
        ]
    ),
    st.binary(max_size=12),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=25), st.sampled_from(["csv", "tsv", "smi", "csv.gz", "smi.gz"]))
@settings(max_examples=120)
def test_no_line_of_any_file_is_lost(lines, ending):
    """Rows are numbered without a gap, and their lines go up to the last one."""
    marks = [b"C" * (9 + index) + b"\t,"[ending[0] == "c" :][:1] + b"mark" for index in range(len(lines))]
    content = b"".join(line + end + mark + b"\n" for (line, end), mark in zip(lines, marks, strict=True))
    head = b"" if "smi" in ending else b"smiles\tid\n" if ending == "tsv" else b"smiles,id\n"
    path = Path(os.environ["PYTEST_FOLDER"]) / f"a.{ending}"
    path.write_bytes(gzip.compress(head + content) if "gz" in ending else head + content)
    source = design.Files([path], None if "smi" in ending else "smiles", None if "smi" in ending else "id")
    found = raw_of(source)
    num_lines = len((head + content).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")) - 1
    numbers = found["line"].to_pylist()
    assert numbers == sorted(set(numbers)) and (not lines or numbers[-1] == num_lines)
    assert found["row"].to_pylist() == list(range(1, len(numbers) + 1))
    assert texts_of(source, 3) == found["text"].to_pylist()[3:]
    encoded = _encode.encode_batch(found.combine_chunks().to_batches()[0], ALPHABET) if lines else None
    if lines:
        for smiles, reason in zip(encoded["smiles"].to_pylist(), encoded["reason"].to_pylist(), strict=True):
            assert (smiles is None) == (reason is not None and not reason.startswith("does not fit"))
    if "smi" in ending:
        assert [text for text in found["text"].to_pylist() if text.startswith("C" * 9)] == [
            f"{'C' * (9 + index)}" for index in range(len(lines))
        ]


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    os.environ["PYTEST_FOLDER"] = str(tmp_path_factory.mktemp("lines"))
    yield
    del os.environ["PYTEST_FOLDER"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_megabyte_lines(tmp_path, end):
    """They are set aside; the lines behind them are not."""
    size = (1 << 20) + 77
    for long in ("C" * size, '"' + "C" * size, '"' + "C" * size + '"', '","' * (size // 3), "C," * size, "[" * size):
        (tmp_path / "a.csv").write_text(f"smiles,id{end}CCO,1{end}{long}{end}CCN,2{end}CCF,3{end}", newline="")
        found = raw_of(design.Files([tmp_path / "a.csv"], "smiles", "id"))
        assert found["text"].to_pylist()[::2] == ["CCO", "CCN"] and found["text"].to_pylist()[3] == "CCF"
        reasons = found["reason"].to_pylist()
        assert len(reasons) == 4 and reasons[::2] == [None, None] and reasons[3] is None
        assert max(map(len, found["text"].to_pylist())) <= 2001
    (tmp_path / "a.smi").write_text(f"CCO 1{end}{'C' * size} 2{end}CCN 3{end}", newline="")
    found = raw_of(design.Files([tmp_path / "a.smi"]))
    assert [text[:3] for text in found["text"].to_pylist()] == ["CCO", "CCC", "CCN"]


def test_quotes_that_never_close_cost_little(tmp_path):
    """Joined lines are read once, not again with each line that might end them."""
    for line in ('",a,"', 'b","c', '"x', '""y"', 'a,"b'):
        (tmp_path / "a.csv").write_text("smiles,id\n" + f"{line}\n" * 3000)
        began = time.process_time()
        num = len(raw_of(design.Files([tmp_path / "a.csv"], "smiles", "id")))
        assert 1000 <= num <= 3000 and time.process_time() - began < 5, line


def test_estimates(tmp_path):
    text = "".join(f"{smiles} {index}\n" for index, smiles in enumerate(screening.molecules(3000)))
    for name, content in (("a.smi", text.encode()), ("a.smi.gz", gzip.compress(text.encode()))):
        (tmp_path / name).write_bytes(content)
        assert design.Files([tmp_path / name]).estimate() == pytest.approx(3000, rel=0.02)
    bomb = gzip.compress(bytes(200 << 20))
    (tmp_path / "bomb.smi.gz").write_bytes(bomb)
    assert design.Files([tmp_path / "bomb.smi.gz"]).estimate() < 100
    assert design.Listed(["C"] * 7).estimate() == 7


# Processes


LIGHT = """
import json, os, signal, sys, time
import pyarrow as pa
def receive():
    head = sys.stdin.buffer.read(8)
    return sys.stdin.buffer.read(int.from_bytes(head, "little")) if head else b""
def send(message):
    sys.stdout.buffer.write(len(message).to_bytes(8, "little") + message)
    sys.stdout.buffer.flush()
length = json.loads(receive())["length"]
send(b"ready")
while message := receive():
    batch = pa.ipc.open_stream(message).read_next_batch()
    texts = batch.column("text").to_pylist()
    if "CRASH" in texts:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "STALL" in texts:
        time.sleep(1000)
    columns = {name: batch.column(name) for name in ("row", "file", "line", "name")} | {"smiles": batch.column("text")}
    columns["tokens"] = pa.array([bytes(length)] * len(batch), pa.binary(length))
    columns["duplicate_of"] = pa.nulls(len(batch), pa.int64())
    columns |= {name: pa.nulls(len(batch), pa.string()) for name in ("reason", "text")}
    batch, sink = pa.record_batch(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    send(sink.getvalue().to_pybytes())
"""
"""A reader that starts fast, takes every text for a molecule, and dies of two words."""


def encoded_with(workers, texts, command=None):
    with Readers(ALPHABET, workers, command) as readers:
        return pa.Table.from_batches(list(readers.read(design.Listed(texts).batches())))


def test_a_poisonous_row_takes_only_itself(monkeypatch):
    monkeypatch.setattr(_readers, "TIMEOUT", 4.0)
    monkeypatch.setattr(_readers, "PART_TIMEOUT", 4.0)
    texts = screening.molecules(1026)
    texts[1], texts[700], texts[1024], texts[1025] = "CRASH", "CRASH", "STALL", "CRASH"
    found = encoded_with(1, texts, [sys.executable, "-c", LIGHT])
    assert found["row"].to_pylist() == list(range(1, len(texts) + 1))
    bad = {1: CRASHED, 700: CRASHED, 1024: STALLED, 1025: CRASHED}
    expected = [None if index in bad else text for index, text in enumerate(texts)]
    assert found["smiles"].to_pylist() == expected
    assert {index: reason for index, reason in enumerate(found["reason"].to_pylist()) if reason} == bad
    assert [text for text in found["text"].to_pylist() if text] == ["CRASH", "CRASH", "STALL", "CRASH"]
    assert found["tokens"].null_count == 4 and not readers_of_this_process()


@pytest.mark.slow
def test_any_number_of_readers_gives_the_same():
    texts = fuzzed(3000, 4)
    here, one, two = (encoded_with(workers, texts) for workers in (0, 1, 2))
    assert here.equals(one) and here.equals(two)


def readers_of_this_process() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and sys.executable in command:
            found.append(path.parent.name)
    return found


def test_abandoned_readers_end_at_once():
    """Even while one of them works on a row without end."""
    texts = ["CCO"] * 1100 + ["STALL"] + ["C"] * 5000
    with Readers(ALPHABET, 2, [sys.executable, "-c", LIGHT]) as readers:
        batches = readers.read(design.Listed(texts).batches())
        assert len(next(batches)) == 1024
        assert len(readers_of_this_process()) == 2
        began = time.monotonic()
    assert time.monotonic() - began < 10 and not readers_of_this_process()


def test_abandoned_screening_leaves_no_process(monkeypatch):
    light = functools.partial(Readers, command=[sys.executable, "-c", LIGHT])
    monkeypatch.setattr(_screen, "Readers", light)
    for end in (lambda batches: batches.close(), lambda batches: None):
        batches = _screen.encoded(design.Listed(["CCO"] * 9000), ALPHABET, workers=2)
        next(batches)
        assert readers_of_this_process()
        end(batches)
        del batches
        assert not readers_of_this_process()


@pytest.mark.parametrize(
    "body", ["", "print('a library that talks')", "import sys; sys.exit(3)", "import time; time.sleep(99)"]
)
def test_readers_that_do_not_start(body, monkeypatch):
    monkeypatch.setattr(_readers, "TIMEOUT", 0.2)
    with pytest.raises(BayesmatError, match="do not start; use workers=0"):
        encoded_with(1, ["CCO"], [sys.executable, "-c", body])
    assert not readers_of_this_process()


# What was met before


def hashed(keys) -> np.ndarray:
    """Hashes of numbers that share their low bits, and in pairs all of a slot's 64."""
    keys = np.asarray(keys, np.uint64)
    return np.stack([(keys // np.uint64(2)) << np.uint64(16), keys << np.uint64(40)], axis=1)


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=12), st.sampled_from([_seen._IN_MEMORY, 4]))
def test_seen_against_a_dictionary(batches, in_memory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_seen, "_IN_MEMORY", in_memory)
        seen, first, row = _seen.Seen(slots=4), {}, 1
        for keys in batches:
            rows = np.arange(row, row + len(keys))
            expected = [first.setdefault(key, int(number)) for key, number in zip(keys, rows, strict=True)]
            assert seen.add(hashed(keys).reshape(-1, 2), rows).tolist() == expected
            row += len(keys)
        assert len(seen) == len(first)


def test_a_million_molecules_met(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 700_000, 1_000_000)
    _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
    spread = rng.integers(0, 1 << 63, (700_000, 2), dtype=np.uint64) * np.uint64(2)
    for in_memory in (1 << 24, 1 << 16):
        monkeypatch.setattr(_seen, "_IN_MEMORY", in_memory)
        seen = _seen.Seen(tmp_path)
        rows = np.arange(1, len(keys) + 1)
        found = [seen.add(spread[keys[i : i + 50_000]], rows[i : i + 50_000]) for i in range(0, len(keys), 50_000)]
        np.testing.assert_array_equal(np.concatenate(found), index[inverse] + 1)
        assert len(seen) == len(index) and not list(tmp_path.iterdir())


def test_hashes():
    found = _seen.hashes(["CCO", None, "CCO", "CCN"])
    assert (
        found.shape == (4, 2) and (found[0] == found[2]).all() and not found[1].any() and (found[0] != found[3]).all()
    )
    assert _seen.hashes([]).shape == (0, 2)


def test_no_room_for_what_was_met(tmp_path, monkeypatch):
    """The file would have holes, and a full disk then end the process with a signal in the middle of a row."""
    monkeypatch.setattr(_seen, "_IN_MEMORY", 4)
    with pytest.raises(BayesmatError, match=f"{tmp_path}: no room for 262,144 bytes"):
        limited(1 << 16, lambda: _seen.Seen(tmp_path))
