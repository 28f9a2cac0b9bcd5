"""One training loop for every network: batches in, the weights of the best epoch out.

Adam with a linear warm-up, a cosine decay to zero and clipped gradients; after each epoch the loss on held-out
batches, which decides which weights are kept and when to stop. It knows nothing of what the network computes.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from tqdm.auto import tqdm

from .._types import Array, BayesmatError

Model = TypeVar("Model")
Batch = Any
Loss = Callable[[Any, Batch, Array | None], tuple[Array, Array]]


class Stop(enum.Enum):
    """Why a training ended."""

    EPOCHS = "all epochs done"
    PATIENCE = "the held-out loss stopped falling"
    TIME = "the time limit was reached"
    DIVERGED = "the loss was no longer finite"
    INTERRUPTED = "interrupted"


class Epoch(NamedTuple):
    """One line of a training's history.

    Attributes:
        number: counted from 1.
        train: mean loss of an item over the epoch, while the weights were moving.
        held_out: mean loss of a held-out item after the epoch.
        seconds: since the start of the training [s].
    """

    number: int
    train: float
    held_out: float
    seconds: float


@dataclass(frozen=True)
class Trained(Generic[Model]):
    """What `train` made.

    Attributes:
        model: with the weights of the epoch whose held-out loss was lowest.
        best: that epoch.
        history: all epochs.
        stop: why the training ended.
    """

    model: Model
    best: Epoch
    history: tuple[Epoch, ...]
    stop: Stop


@dataclass(frozen=True)
class Schedule:
    """How the steps are made.

    Attributes:
        epochs: passes over the training batches at most.
        learning_rate: its highest value; Adam's.
        warm_up: share of the steps over which it rises from zero; it then falls to zero as a cosine.
        clip: the largest norm of a gradient.
        patience: epochs without a lower held-out loss after which the training stops.
        time_limit: seconds of training at most, None for no limit. The decay then follows the clock where that runs
            ahead of the epochs, so that it reaches zero in time; the result depends on the machine's speed.

    Raises:
        BayesmatError: a value is out of range.
    """

    epochs: int = 10
    learning_rate: float = 2e-3
    warm_up: float = 0.05
    clip: float = 1.0
    patience: int = 3
    time_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "clip", "patience", "time_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BayesmatError(f"{name} is {value}; allowed are values above zero")
        if not 0 <= self.warm_up < 1:
            raise BayesmatError(f"warm_up is {self.warm_up}; allowed are 0 to 1, 1 excluded")

    def rate(self, progress: float) -> float:
        """The learning rate at a share of the training in [0, 1]."""
        if progress < self.warm_up:
            return self.learning_rate * (progress + 1e-3) / (self.warm_up + 1e-3)
        done = (progress - self.warm_up) / (1 - self.warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(
    model: Model,
    loss: Loss,
    batches: Callable[[int], Sequence[Batch]],
    held_out: Sequence[Batch],
    schedule: Schedule | None = None,
    *,
    key: Array | None = None,
    description: str = "training",
    unit: str = "",
    report: Callable[[Epoch], None] | None = None,
) -> Trained[Model]:
    """Train a network; the same arguments give the same weights, unless there is a time limit.

    Args:
        model: an Equinox module; all its floating-point arrays are trained.
        loss: `(model, batch, key) → (sum of the items' losses, number of items)`; key is None on held-out batches.
        batches: epoch (from 0) → its batches, pytrees of arrays; one program is compiled for each shape.
        held_out: batches that are never trained on.
        schedule: None for the defaults of `Schedule`.
        key: for a `loss` that is random, such as one with dropout.
        description: what the progress bar says.
        unit: of the loss, for the progress bar.
        report: called after each epoch.

    Raises:
        BayesmatError: there are no training or no held-out batches, or the first epoch's loss is not finite.

    An interrupt (Ctrl-C) ends the training early once one epoch is complete, and is passed on before.
    """
    schedule = schedule or Schedule()
    optimiser = optax.chain(optax.clip_by_global_norm(schedule.clip), optax.scale_by_adam())
    step, evaluate = _programs(loss, optimiser)
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))
    key = jax.random.key(0) if key is None else key
    begin = time.perf_counter()
    history: list[Epoch] = []
    best: tuple[Epoch, Model] | None = None
    first = batches(0)
    if not first or not held_out:
        raise BayesmatError("a training needs at least one training batch and one held-out batch")
    steps, total = 0, schedule.epochs * len(first)
    bar = tqdm(total=total, desc=description, delay=2.0, leave=False, dynamic_ncols=True)

    def progress() -> float:
        limit = schedule.time_limit
        clock = 0.0 if limit is None else (time.perf_counter() - begin) / limit
        return max(steps / total, clock)

    stop = Stop.EPOCHS
    try:
        with bar:
            for number in range(schedule.epochs):
                sums = []
                for batch in first if number == 0 else batches(number):
                    if (done := progress()) >= 1 and schedule.time_limit is not None:
                        break
                    rate = jnp.asarray(schedule.rate(done), jnp.float32)
                    model, state, summed = step(model, state, batch, rate, jax.random.fold_in(key, steps))
                    sums.append(summed)
                    steps += 1
                    bar.update()
                if not sums:  # the limit fell between two epochs
                    stop = Stop.TIME
                    break
                last = Epoch(number + 1, _mean(sums), _mean([evaluate(model, batch) for batch in held_out]),
                             time.perf_counter() - begin)  # fmt: skip
                history.append(last)
                if best is None or last.held_out < best[0].held_out:
                    best = last, model
                if report:
                    report(last)
                bar.set_postfix_str(f"train {last.train:.2f} held out {last.held_out:.2f} {unit}".rstrip())
                if (reason := _finished(schedule, last, best[0], progress())) is not None:
                    stop = reason
                    break
    except KeyboardInterrupt:
        if best is None:
            raise
        stop = Stop.INTERRUPTED
    if best is None or not math.isfinite(best[0].held_out):
        raise BayesmatError("the loss is not finite after the first epoch; try a lower learning rate")
    return Trained(best[1], best[0], tuple(history), stop)


def _finished(schedule: Schedule, last: Epoch, best: Epoch, progress: float) -> Stop | None:
    if not math.isfinite(last.held_out):
        return Stop.DIVERGED
    if last.number == schedule.epochs:
        return Stop.EPOCHS
    if schedule.time_limit is not None and progress >= 1:
        return Stop.TIME
    return Stop.PATIENCE if last.number - best.number >= schedule.patience else None


def _programs(loss: Loss, optimiser: optax.GradientTransformation) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled training step and the compiled held-out loss; both give (sum of losses, number of items)."""

    def mean(model: Any, batch: Batch, key: Array) -> tuple[Array, tuple[Array, Array]]:
        summed, number = loss(model, batch, key)
        return summed / number, (summed, number)

    @eqx.filter_jit
    def step(model: Any, state: Any, batch: Batch, rate: Array, key: Array) -> tuple[Any, Any, tuple[Array, Array]]:
        gradient, summed = eqx.filter_grad(mean, has_aux=True)(model, batch, key)
        updates, state = optimiser.update(gradient, state)
        updates = jax.tree.map(lambda u: (-rate * u).astype(u.dtype), updates)
        return eqx.apply_updates(model, updates), state, summed

    @eqx.filter_jit
    def evaluate(model: Any, batch: Batch) -> tuple[Array, Array]:
        return loss(model, batch, None)

    return step, evaluate


def _mean(sums: Sequence[tuple[Array, Array]]) -> float:
    return sum(float(summed) for summed, _ in sums) / sum(float(number) for _, number in sums)
