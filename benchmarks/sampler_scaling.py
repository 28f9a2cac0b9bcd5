"""How the sampler scales with the number of particles: time and memory per particle-iteration.

A particle-iteration is one move of one particle: a proposal by one of the kernels (regrow, regrow tail, crossover,
infill, reorder, in tuned proportions), its features and its posterior predictive where needed, and acceptance. The
model is the flash point of organic molecules (hierarchical linear model on fingerprints, thinned posterior draws);
three temperatures, eight moves each. Compilation is timed apart.

    python benchmarks/sampler_scaling.py [--most 17] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpyro
from tqdm import tqdm

import bayesmat as bm

OUTPUT = Path(__file__).with_suffix(".json")
MOVES, SCHEDULE = 8, (0.1, 0.4, 1.0)


def problem() -> Any:
    """Molecules with a flash point between 380 and 400 K."""
    prior = bm.prior.load("organic")
    model = bm.forward.fit(bm.data.load("flash_point").organic(), key=jax.random.key(0))

    def inverse() -> None:
        x = numpyro.sample("molecule", prior)
        numpyro.factor("target", bm.design.Interval(380.0, 400.0).log_prob(model.predict(x)))

    return inverse


def measure(inverse: Any, num_particles: int) -> dict[str, float]:
    """Seconds and bytes of runs with N particles; the fastest of a few, for the machine is shared."""
    sampler = bm.smc.SMC(inverse, num_particles, num_moves=MOVES, schedule=SCHEDULE, progress_bar=False)
    start = time.perf_counter()
    sampler.run(jax.random.key(0))
    first = time.perf_counter() - start
    wall, cpu = [], []
    for seed in range(1, 4 if num_particles < 2**14 else 2):
        clocks = time.perf_counter(), time.process_time()
        sampler.run(jax.random.key(seed))
        wall.append(time.perf_counter() - clocks[0])
        cpu.append(time.process_time() - clocks[1])
    iterations = num_particles * MOVES * len(SCHEDULE)
    return {
        "first run with compilation [s]": round(first, 1),
        "particle-iterations per second": round(iterations / min(wall)),
        "particle-iterations per CPU-second": round(iterations / min(cpu)),
        "memory of a step [MB]": round(sampler.step_memory() / 1e6, 1),
        "bytes per particle": round(sampler.step_memory() / num_particles),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=17, help="largest number of particles, as a power of two")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    inverse = problem()
    sizes = [2**power for power in range(8, arguments.most + 1)]
    result = {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version(), "jax": version("jax"), "bayesmat": version("bayesmat")},
        "moves per temperature": MOVES,
        "temperatures": list(SCHEDULE),
        "particles": {str(size): measure(inverse, size) for size in tqdm(sizes, desc="particles")},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["particles"], indent=1))


if __name__ == "__main__":
    main()
