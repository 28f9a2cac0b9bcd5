"""Screening with Ray gives what one process gives, whoever is killed.

python test_screen_ray.py FOLDER FIT LIBRARY is a driver to kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from screening import same_bits, table

from bayesmat import BayesmatError, chem, data, design, forward
from bayesmat.design._screening import _ray

SHARD_ROWS = 1024
NUM_SHARDS = 12
ROWS = SHARD_ROWS * (NUM_SHARDS - 1) + 300
WRONG = ("not a molecule", "C[Mg]C", "", "CC\0C", "C" * 3000)
ALPHABET = chem.Alphabet.organic(40)
OPTIONS = {"targets": {"k": design.Above(0.5)}, "shard_rows": SHARD_ROWS}


def library():
    """Molecules, one in nine of another shard or the same one once more, and one in eleven that cannot be read."""
    tokens = chem.random_strings(jax.random.key(5), ROWS, ALPHABET)
    texts = [chem.to_smiles(row, ALPHABET) for row in np.asarray(tokens)]
    rng = np.random.default_rng(0)
    for index in rng.choice(np.arange(1, ROWS), ROWS // 9, replace=False):
        texts[index] = texts[rng.integers(index)]
    for index in rng.choice(ROWS, ROWS // 11, replace=False):
        texts[index] = WRONG[index % len(WRONG)]
    return texts


def made_up():
    """A fit of forty made up measurements."""
    texts = tuple("C" * length + tail for length in range(2, 12) for tail in ("O", "N", "Cl", "S"))
    y = np.random.default_rng(0).normal([0.1 * len(text) for text in texts], 0.1)
    ones = np.ones(len(y), int)
    rows = data.PropertyTable("k", "k", "1", texts, y, ones, ones, ("",) * len(y), (), "", len(y))
    return forward.fit(rows, key=jax.random.key(0), own=("descriptors",), transfer=(), cache=False, progress=False)


def screen(folder, fit, texts, **options):
    return design.screen_to(folder, texts, [fit], **(OPTIONS | {"engine": "ray", "workers": 2} | options))


# Without Ray


def test_engine_is_named(tmp_path):
    with pytest.raises(BayesmatError, match="engine 'spark'; allowed are process, ray"):
        design.screen_to(tmp_path, ["C"], [], {}, engine="spark")


def test_missing_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(BayesmatError, match=r"pip install 'bayesmat\[ray\]'"):
        design.screen_to(tmp_path / "new", ["C"], [], {}, engine="ray")
    assert not (tmp_path / "new").exists()


def test_ray_is_asked_only_when_needed():
    """The module is read without Ray, which takes two seconds to import."""
    code = "import sys, bayesmat.design._screening._ray; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_worker_that_died_over_a_shard_is_careful_and_then_gives_up(tmp_path):
    work = tmp_path / _ray.WORK
    work.mkdir()
    source = design.Listed(["CCO", "OCC", "bad", "c1ccccc1"])
    assert _ray._write_raw(source, work, 0, SHARD_ROWS) == 1
    assert _ray._write_raw(source, work, 0, SHARD_ROWS) == 1  # as a resumed run does it
    reader, tries, encoded = (
        _ray._Reader(str(work), ALPHABET.to_card()),
        work / "tries-000000",
        work / "encoded-000000.parquet",
    )
    found = []
    for died in (0, 1):
        tries.write_text("." * died)
        assert json.loads(reader({"item": 0})["answer"]) == {} and not tries.exists()
        found.append(encoded.read_bytes())
        encoded.unlink()
    assert found[0] == found[1]
    tries.write_text("." * _ray.MAX_TRIES)
    assert "10 workers died over it" in json.loads(reader({"item": 0})["answer"])["error"]
    assert "raw-000007.parquet: damaged" in json.loads(reader({"item": 7})["answer"])["error"]
    elsewhere = _ray._Reader(str(tmp_path / "other" / _ray.WORK), ALPHABET.to_card())
    assert "all machines of the cluster must see it" in json.loads(elsewhere({"item": 0})["answer"])["error"]


# With Ray


@pytest.fixture(scope="module")
def ray():
    """Ray as a user may have begun it."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("ray.data", reason="Ray Data is not installed")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork", RuntimeWarning)  # JAX's
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def fit():
    return made_up()


@pytest.fixture(scope="module")
def texts():
    return library()


@pytest.fixture(scope="module")
def expected(tmp_path_factory, fit, texts):
    """What one process gives."""
    folder = tmp_path_factory.mktemp("one") / "out"
    counts = screen(folder, fit, texts, engine="process")
    assert counts.rows == ROWS and counts.duplicates > 500 and counts.set_aside > 500
    return folder


def same(found, expected):
    """All bits of the tables, and nothing that is left over."""
    assert same_bits(table(found), table(expected))
    names = [sorted(path.name for path in folder.iterdir()) for folder in (found, expected)]
    assert names[0] == names[1]
    assert (found / "manifest.json").read_text() == (expected / "manifest.json").read_text()


@pytest.mark.slow
def test_two_workers_give_what_one_process_gives(tmp_path, ray, fit, texts, expected):
    counts = screen(tmp_path / "out", fit, texts)
    same(tmp_path / "out", expected)
    assert counts == screen(tmp_path / "out", fit, texts, resume=True)
    assert ray.is_initialized()  # that of the caller is left alone
    again = np.asarray(table(expected)["duplicate_of"].drop_null())
    at = np.flatnonzero(np.asarray(table(expected)["duplicate_of"].is_valid()))
    assert (again // SHARD_ROWS != at // SHARD_ROWS).sum() > 100  # duplicates across shards
    with pytest.raises(BayesmatError, match="0 workers; engine 'ray' needs one or more"):
        screen(tmp_path / "none", fit, texts, workers=0)


@pytest.mark.slow
def test_encoded_library(tmp_path, ray, fit, texts):
    """Its shards are not those of the results."""
    design.encode_library(tmp_path / "library", texts, fit.alphabet, shard_rows=4 * SHARD_ROWS)
    library = design.Encoded(tmp_path / "library")
    screen(tmp_path / "one", fit, library, engine="process", shard_rows=3 * SHARD_ROWS)
    screen(tmp_path / "ray", fit, library, shard_rows=3 * SHARD_ROWS)
    same(tmp_path / "ray", tmp_path / "one")
    library.paths[0].write_bytes(b"PAR1")
    with pytest.raises(BayesmatError, match="part-000000.parquet: damaged"):
        screen(tmp_path / "bad", fit, library)


def descendants():
    """(process, command) of this one's children and theirs."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,command="], capture_output=True, text=True, check=True).stdout
    found = {
        int(pid): (int(parent), command) for pid, parent, command in (r.split(None, 2) for r in listed.splitlines())
    }
    for pid, (parent, command) in found.items():
        while parent in found and parent != os.getpid():
            parent = found[parent][0]
        if parent == os.getpid():
            yield pid, command


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["_Reader", "_Predictor"])
def test_killed_worker_costs_nothing_but_time(tmp_path, ray, fit, texts, expected, kind):
    folder, killed, over = tmp_path / "out", [], threading.Event()

    def kill():
        while not killed and not over.wait(0.01):
            busy = list((folder / _ray.WORK).glob("tries-*"))
            workers = [pid for pid, command in descendants() if f"Map({kind})" in command] if busy else []
            if workers and not json.loads((folder / "manifest.json").read_text())["shards"]:
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        screen(folder, fit, texts)
    finally:
        over.set()
        thread.join()
    assert killed, f"no {kind} was seen at work"
    same(folder, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "engine"), [("_work/encoded-000001.parquet", "ray"), ("part-000001.parquet", "process")]
)
def test_killed_driver_is_resumed(tmp_path, ray, fit, texts, expected, mark, engine):
    folder, listed = tmp_path / "out", tmp_path / "library.json"
    forward.save(fit, tmp_path / "fit")
    listed.write_text(json.dumps(texts))
    command = [sys.executable, __file__, str(folder), str(tmp_path / "fit"), str(listed)]
    driver = subprocess.Popen(command)
    try:
        begun = time.monotonic()
        while not (folder / mark).exists():
            assert driver.poll() is None and time.monotonic() < begun + 300
            time.sleep(0.01)
    finally:
        driver.kill()
        driver.wait()
    assert not json.loads((folder / "manifest.json").read_text())["complete"]
    screen(folder, fit, texts, resume=True, engine=engine)
    same(folder, expected)


if __name__ == "__main__":
    out, saved, listed = map(Path, sys.argv[1:])
    screen(out, forward.load(saved), json.loads(listed.read_text()))
