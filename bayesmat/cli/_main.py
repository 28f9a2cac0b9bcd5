"""Arguments in, one public call, a short answer on standard output."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import bayesmat as bm

from . import _fit, _library, _prior, _screen


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="bayesmat", description="Bayesian design of materials from little data.")
    top.add_argument("--version", action="version", version=f"bayesmat {metadata.version('bayesmat')}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    design = commands.add_parser("design", help="sample molecules that have the wanted properties")
    design.add_argument("problem", metavar="PROBLEM.toml", help="what is wanted, see examples/coolant.toml")
    design.add_argument("--out", required=True, metavar="DIR", help="folder for candidates, posterior and report")
    design.add_argument("--seed", type=int, metavar="N", help="overrides the file's seed")
    design.add_argument("--particles", type=int, metavar="N", help="overrides the file's number of particles")
    design.add_argument("--resume", action="store_true", help="go on from where an interrupted run in DIR ended")
    design.set_defaults(call=_design)
    _fit.add_commands(commands)
    _library.add_commands(commands)
    _prior.add_commands(commands)
    _screen.add_commands(commands)
    tables = commands.add_parser("data", help="the measured tables").add_subparsers(
        dest="what", required=True, metavar="list"
    )
    tables.add_parser("list", help="name, size, range and unit of every table").set_defaults(call=_data_list)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, 2 for input that bayesmat cannot work with."""
    arguments = parser().parse_args(argv)
    _keep_compiled_programs()
    try:
        return int(arguments.call(arguments))
    except bm.BayesmatError as error:
        print(f"bayesmat: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumable = getattr(arguments, "resume", None) is not None
        print(f"bayesmat: interrupted{'; go on with --resume' if resumable else ''}", file=sys.stderr)
        return 130


def _keep_compiled_programs() -> None:
    """Compiled programs are kept between runs, unless the user has set a place for them."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(bm.cache_dir() / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _design(arguments: argparse.Namespace) -> int:
    start = time.perf_counter()
    problem = bm.design.read_problem(arguments.problem)
    problem = problem.with_sampler(seed=arguments.seed, particles=arguments.particles)
    out = Path(arguments.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise bm.BayesmatError(f"{out}: cannot be made a folder ({error.strerror})") from error
    print(problem.title)
    for sought in problem.sought.values():
        table = sought.table
        print(f"  {table.label} {sought.target.text(table.unit)}, from {len(table):,} measured compounds")
    checkpoint = out / "checkpoint"
    run = bm.design.solve(problem, checkpoint=checkpoint, resume=arguments.resume)
    paths = [*bm.design.write(run, out), bm.report.write(run, out / "report.html")]
    shutil.rmtree(checkpoint, ignore_errors=True)  # the design is finished: there is nothing to go on from
    best = run.candidates
    print(run.sampler.status)
    print(f"  {run.sampler.num_distinct} distinct molecules in {run.sampler.num_particles} particles")
    print(f"  mean p_hit {run.posterior_p_hit:.3g} in the posterior, {run.prior_p_hit:.3g} in the prior")
    for row in range(min(5, len(best.smiles))):
        print(f"  p_hit {best.p_hit[row]:.2f}  {best.smiles[row]}  {best.name[row]}".rstrip())
    for warning in run.warnings:
        print(f"  warning: {warning}")
    print(f"Written in {time.perf_counter() - start:.0f} s: {', '.join(str(path) for path in paths)}")
    return 0


def _data_list(arguments: argparse.Namespace) -> int:
    for name in bm.data.names():
        table = bm.data.load(name)
        print(f"{name:22s} {len(table):6,d}  {table.y.min():.4g} to {table.y.max():.4g} {table.unit}  {table.label}")
    return 0
