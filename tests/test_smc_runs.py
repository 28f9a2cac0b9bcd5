"""Long runs: checkpoints, kills, resumption, several devices, several processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import smc_process

from bayesmat import BayesmatError, smc

SCRIPT = Path(smc_process.__file__)


def start(out: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(out), *map(str, arguments)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    return error


def assert_same(found: dict, expected: dict) -> None:
    assert set(expected) <= set(found)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, np.ndarray]:
    run = smc_process.sampler()
    run.run(jax.random.key(5))
    assert min(len(island.info.beta) for island in run.islands) >= 4
    return smc_process.results(run)


@pytest.mark.parametrize("written", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, uninterrupted, written) -> None:
    """SIGKILL after so many checkpoints: in the first island, and in the second."""
    out, folder = tmp_path / "out.npz", tmp_path / "checkpoint"
    finish(start(out, "--checkpoint", folder, "--stop-after", str(written)), -signal.SIGKILL)
    assert not out.exists() and list(folder.iterdir())
    run = smc_process.sampler(checkpoint=folder, resume=True)
    run.run(jax.random.key(5))
    assert_same(smc_process.results(run), uninterrupted)


@pytest.mark.slow
def test_interrupted_run_leaves_a_checkpoint(tmp_path, uninterrupted) -> None:
    out, folder = tmp_path / "out.npz", tmp_path / "checkpoint"
    error = finish(start(out, "--checkpoint", folder, "--interrupt-after", "3"), -signal.SIGINT)
    assert "KeyboardInterrupt" in error
    finish(start(out, "--checkpoint", folder, "--resume"))
    assert_same(dict(np.load(out)), uninterrupted)


def test_finished_run_is_read_back_without_a_step(tmp_path, uninterrupted, monkeypatch) -> None:
    folder = tmp_path / "checkpoint"
    smc_process.sampler(checkpoint=folder).run(jax.random.key(5))
    run = smc_process.sampler(checkpoint=folder, resume=True)

    def no_step(*_, **__):
        raise AssertionError("a finished run was continued")

    monkeypatch.setattr("bayesmat.smc._checkpoint.save", no_step)
    run.run(jax.random.key(5))
    assert_same(smc_process.results(run), uninterrupted)


@pytest.mark.slow
def test_checkpoint_of_another_run_is_refused(tmp_path) -> None:
    folder = tmp_path / "checkpoint"
    smc_process.sampler(checkpoint=folder, islands=1).run(jax.random.key(5))
    for settings, key in (({}, 6), ({"target_ess": 0.7}, 5), ({"kernels": [smc.Regrow()]}, 5)):
        other = smc_process.sampler(checkpoint=folder, resume=True, islands=1, **settings)
        with pytest.raises(BayesmatError, match="another run"):
            other.run(jax.random.key(key))
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BayesmatError, match="no checkpoint"):
        smc_process.sampler(checkpoint=folder, resume=True, islands=1).run(jax.random.key(5))


@pytest.mark.slow
def test_particles_are_spread_over_devices(tmp_path, uninterrupted) -> None:
    """Two devices draw other random numbers than one, so the posterior is compared, not the particles."""
    out = tmp_path / "out.npz"
    finish(start(out, XLA_FLAGS="--xla_force_host_platform_device_count=2"))
    found = dict(np.load(out))
    assert found["devices"] == 2
    assert not np.array_equal(found["molecule"], uninterrupted["molecule"]), "the particles were not spread"
    assert found["molecule"].shape == uninterrupted["molecule"].shape
    # 128 particles in each of two islands: the error of a mean is some 1/√128 of the posterior's spread.
    assert abs(found["log_evidences"].mean() - uninterrupted["log_evidences"].mean()) < 1.0
    assert abs(found["z"].mean() - uninterrupted["z"].mean()) < 0.5
    residual = found["z"] + 0.5 * (found["molecule"] == smc_process.TINY.names.index("O")).sum(-1) - 1.9
    assert np.abs(residual).mean() < 0.1
    np.testing.assert_allclose(found["log_likelihood"], -0.5 * (residual.ravel() / 0.05) ** 2 + 2.0768, atol=2e-3)


@pytest.mark.slow
def test_islands_run_in_several_processes(tmp_path, uninterrupted) -> None:
    """Two processes, an island each: both hold both islands, as one process does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outs = [tmp_path / f"{i}.npz" for i in range(2)]
    processes = [start(out, "--processes", "2", "--process", str(i), "--port", str(port)) for i, out in enumerate(outs)]
    for process in processes:
        finish(process)
    for out in outs:
        assert_same(dict(np.load(out)), uninterrupted)
