"""A sampler run as a process of its own: what the tests of long runs start, kill and compare.

python smc_process.py OUT.npz [--checkpoint FOLDER] [--resume] [--stop-after T] [--interrupt-after T]
                      [--processes N --process I --port P]
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from enumeration import TINY, tiny_prior

from bayesmat import smc


def sampler(**settings) -> smc.SMC:
    p_x = tiny_prior()  # not on import: the processes must have found each other before JAX is used

    def model() -> None:
        x = numpyro.sample("molecule", p_x)
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z + 0.5 * (x == TINY.names.index("O")).sum(), 0.05), obs=jnp.array(1.9))

    return smc.SMC(model, 128, num_moves=2, progress_bar=False, **{"islands": 2, **settings})


def results(run: smc.SMC) -> dict[str, np.ndarray]:
    samples = run.get_samples(group_by_island=True)
    table = run.diagnostics()
    return {name: np.asarray(value) for name, value in samples.items()} | {
        "log_evidences": run.log_evidences,
        "log_likelihood": run.log_likelihood,
        "diagnostics": table.to_numpy(float),
    }


def stop_after(count: int, how: signal.Signals) -> None:
    """Send a signal to this process once `count` checkpoints were written."""
    from bayesmat.smc import _checkpoint

    save, written = _checkpoint.save, []

    def counting(path: Path, tree, card) -> None:
        save(path, tree, card)
        written.append(path)
        if len(written) == count:
            signal.raise_signal(how)  # to this thread, so that it takes effect here

    _checkpoint.save = counting


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--stop-after", type=int, default=0)
    parser.add_argument("--interrupt-after", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.stop_after:
        stop_after(given.stop_after, signal.SIGKILL)
    if given.interrupt_after:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
        stop_after(given.interrupt_after, signal.SIGINT)
    if given.processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{given.port}", given.processes, given.process)
    run = sampler(checkpoint=given.checkpoint, resume=given.resume)
    run.run(jax.random.key(5))
    np.savez(given.out, devices=jax.local_device_count(), **results(run))


if __name__ == "__main__":
    main()
