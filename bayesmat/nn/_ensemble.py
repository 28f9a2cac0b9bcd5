"""Many perceptrons trained at once: one compiled program over a stack of networks of different shapes.

Every network has its own property, rows, features, depth, widths and training settings, all drawn from its seed. The
networks of a stack are padded with zeros to one shape. The activation maps zero to zero, so that the gradient in the
padding is zero too: it stays zero without masks, and a network comes out the same whatever it was stacked with.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from tqdm.auto import tqdm

from .._types import Array, BayesmatError
from ._training import Schedule

CLIP = 5.0
"""Standard deviations at which features are cut: a molecule far from the training data cannot blow a network up."""

MIN_ROWS = 50
"""Measured rows that a property needs."""

_DEPTHS = (3, 4, 5)
_BATCH = 128
_EPOCHS = 30
_STEPS = (200, 600)  # at least and at most
_BLOCK = 1024  # the number of rows on the device is a multiple of it
_CHUNK = 50  # steps in one call of the compiled program, so that the progress bar moves
_MAX_HELD_OUT = 1000
_ADAM = optax.scale_by_adam()


class Weights(NamedTuple):
    """What training changes; of a stack, every array has a first axis of networks.

    Attributes:
        kernels: `(d, w1)`, `(w1, w2)`, … of the hidden layers.
        biases: `(w1,)`, `(w2,)`, …
        readout: `(w_last,)`.
        offset: `()`.
    """

    kernels: tuple[Array, ...]
    biases: tuple[Array, ...]
    readout: Array
    offset: Array


class Network(eqx.Module):
    """A multilayer perceptron on standardised features; a stack of them under `jax.vmap`.

    Attributes:
        weights: of the layers.
        center: `(d,)` means of the features.
        scale: `(d,)` reciprocal standard deviations; 0 for a feature that is not used.
        present: `(depth,)` whether a layer exists; one that does not hands its input on.
        slope: `()` of the activation z / (1 + exp(-slope z)).
        y_center, y_scale: `()` the property (or its logarithm) is y_center + y_scale · readout.
        log: `()` bool, whether it is the logarithm.
    """

    weights: Weights
    center: Array
    scale: Array
    present: Array
    slope: Array
    y_center: Array
    y_scale: Array
    log: Array

    def hidden(self, x: Array) -> Array:
        """The last hidden layer `(..., w_last)` of base features `(..., d)`."""
        h = jnp.clip((x - self.center) * self.scale, -CLIP, CLIP)
        for layer, (kernel, bias) in enumerate(zip(self.weights.kernels, self.weights.biases, strict=True)):
            z = h @ kernel + bias
            made = z * jax.nn.sigmoid(self.slope * z)
            h = made if layer == 0 else jnp.where(self.present[layer], made, h[..., : made.shape[-1]])
        return h

    def standardised(self, x: Array) -> Array:
        """The prediction `(...,)` on the scale of the training."""
        return self.hidden(x) @ self.weights.readout + self.weights.offset

    def predict(self, x: Array) -> Array:
        """The prediction `(...,)` in the unit of the property."""
        y = self.y_center + self.y_scale * self.standardised(x)
        return jnp.where(self.log, jnp.exp(jnp.where(self.log, y, 0)), y)


@dataclass(frozen=True, eq=False)
class Member:
    """A trained network as plain arrays.

    Attributes:
        target: column of the property.
        seed: (seed of the ensemble, number of the network).
        widths: of the hidden layers, never rising.
        features: `(k,)` columns of the base features that it uses.
        standards: `(2, k)` float32 their means and reciprocal standard deviations.
        weights: `(size,)` float16, layer by layer kernel and bias, then readout and offset.
        slope: of the activation.
        log: whether the logarithm of the property was learned.
        y_center, y_scale: mean and standard deviation of the (logarithmic) property in training.
        learning_rate, weight_decay: of the training.
        num_train, num_held_out: rows.
        r2: on held-out rows, on the scale of the training, of the weights as stored.
        mae: on held-out rows, in the unit of the property.
    """

    target: int
    seed: tuple[int, int]
    widths: tuple[int, ...]
    features: np.ndarray
    standards: np.ndarray
    slope: float
    log: bool
    y_center: float
    y_scale: float
    learning_rate: float
    weight_decay: float
    num_train: int
    num_held_out: int
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float16))
    r2: float = float("nan")
    mae: float = float("nan")


class _Plan(NamedTuple):
    member: Member
    train: np.ndarray  # rows of x
    held_out: np.ndarray
    steps: int


def train_ensemble(
    x: np.ndarray,
    y: np.ndarray,
    num_models: int,
    *,
    seed: int = 0,
    widths: tuple[int, int] = (16, 256),
    max_rows: int = 3000,
    group_size: int = 32,
    progress: bool = True,
) -> Iterator[list[Member]]:
    """Networks of random shape, each for one property, in groups as they are done.

    Network i learns property i modulo P from a random 80 % of its rows (at most `max_rows`) and is judged on the rest
    (at most 1,000); there is no early stopping, so the held-out rows decide nothing.

    Args:
        x: `(n, d)` base features.
        y: `(n, P)` properties, NaN where not measured.
        num_models: how many networks.
        seed: of everything random; the first k networks are the same (up to rounding) for every larger number.
        widths: of hidden layers, the smallest and the largest that are drawn.
        max_rows: that a network is trained on.
        group_size: networks in one program.
        progress: show a bar and the time left.

    Raises:
        BayesmatError: shapes do not agree, a value is not finite, or a property has fewer than 50 rows or one value.
    """
    x = np.asarray(x, np.float32)
    check_settings(num_models, widths, max_rows, group_size)
    _check(x, y[:, :num_models] if y.ndim == 2 else y)
    plans = [_plan(x, y, i, seed, widths, max_rows) for i in range(num_models)]
    groups = _alike(plans, group_size)
    work = [_work(group) for group in groups]
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    bar = tqdm(total=sum(work), desc=f"{num_models} networks", bar_format=form, delay=2.0, leave=False,
               dynamic_ncols=True, disable=not progress)  # fmt: skip
    device_x = jnp.asarray(np.pad(x, ((0, -len(x) % _BLOCK), (0, 0))))  # few shapes, so that programs are reused
    with bar:
        for group, share in zip(groups, work, strict=True):
            calls = -(-max(plan.steps for plan in group) // _CHUNK)
            stack = _trained(device_x, y, group, lambda share=share, calls=calls: bar.update(share / calls))
            yield _judged(device_x, y, group, stack)


def check_settings(num_models: int, widths: tuple[int, int], max_rows: int, group_size: int) -> None:
    """Refuse what `train_ensemble` refuses of these; worth asking before features are made."""
    if num_models < 1 or group_size < 1:
        raise BayesmatError(f"num_models is {num_models} and group_size {group_size}; allowed are numbers from 1")
    if not 8 <= widths[0] <= widths[1]:
        raise BayesmatError(f"widths are {widths}; needed are a smallest of at least 8 and a largest not below it")
    if max_rows < MIN_ROWS:
        raise BayesmatError(f"max_rows is {max_rows}; at least {MIN_ROWS} are needed")


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not y.shape[1]:
        raise BayesmatError(f"base features have shape {x.shape} and properties {y.shape}; needed are (n, d), (n, P)")
    if not np.isfinite(x).all() or np.isinf(y).any():
        raise BayesmatError("base features must be finite, and properties finite or NaN")
    for column, values in enumerate(y.T):
        known = values[np.isfinite(values)]
        if len(known) < MIN_ROWS or not np.ptp(known) > 1e-9 * np.abs(known).max():
            raise BayesmatError(f"property {column} has {len(known)} rows, or one value only; needed are {MIN_ROWS}")


def is_logarithmic(y: np.ndarray) -> bool:
    """Whether a property is learned by its logarithm: positive, of skewness above 1, and less skewed so."""
    if (y <= 0).any() or not scipy.stats.skew(y) > 1:
        return False
    return bool(abs(scipy.stats.skew(np.log(y))) < scipy.stats.skew(y))


def _plan(x: np.ndarray, y: np.ndarray, index: int, seed: int, widths: tuple[int, int], max_rows: int) -> _Plan:
    """Everything about one network but its weights, from its own random numbers."""
    rng = np.random.default_rng([seed, index])
    target = index % y.shape[1]
    rows = rng.permutation(np.flatnonzero(np.isfinite(y[:, target])))
    log = is_logarithmic(y[rows, target])
    num_held_out = min(len(rows) // 5, _MAX_HELD_OUT)
    held_out, train = rows[:num_held_out], rows[num_held_out : num_held_out + max_rows]
    value = np.log(y[train, target]) if log else y[train, target]
    mean, sd = x[train].mean(0, dtype=np.float64), x[train].std(0, dtype=np.float64)
    varying = np.flatnonzero(sd > 1e-6)
    if not len(varying) or not value.std() > 0:
        raise BayesmatError(f"property {target}: the features or the values of its training rows are all equal")
    chosen = np.sort(rng.permutation(varying)[: max(1, round(rng.uniform(0.5, 1.0) * len(varying)))])
    depth = int(rng.choice(_DEPTHS))
    drawn = np.exp(rng.uniform(np.log(widths[0]), np.log(widths[1]), depth))
    member = Member(
        target=target,
        seed=(seed, index),
        widths=tuple(sorted((int(w) for w in np.clip(8 * np.round(drawn / 8), *widths)), reverse=True)),
        features=chosen.astype(np.uint16),
        standards=np.stack([mean[chosen], 1 / sd[chosen]]).astype(np.float32),
        slope=float(np.exp(rng.uniform(np.log(0.5), np.log(8.0)))),
        log=log,
        y_center=float(value.mean()),
        y_scale=float(value.std()),
        learning_rate=float(np.exp(rng.uniform(np.log(1e-3), np.log(4e-3)))),
        weight_decay=float(np.exp(rng.uniform(np.log(1e-2), np.log(3.0)))),
        num_train=len(train),
        num_held_out=len(held_out),
    )
    steps = int(np.clip(_EPOCHS * len(train) / _BATCH, *_STEPS))
    return _Plan(member, train, held_out, steps)


def _profile(plan: _Plan) -> tuple[int, ...]:
    """Steps and widths, the last one repeated where there is no layer: what a stack is padded to the maximum of."""
    widths = plan.member.widths
    return plan.steps, *widths, *widths[-1:] * (max(_DEPTHS) - len(widths))


def _work(plans: Sequence[_Plan]) -> float:
    """What training these as one stack costs, padding included; 256 stands for the base features."""
    steps, *widths = np.max([_profile(plan) for plan in plans], axis=0).tolist()
    widths = widths[: max(len(plan.member.widths) for plan in plans)]
    return float(len(plans) * steps * sum(a * b for a, b in zip([256, *widths], widths, strict=False)))


def _alike(plans: list[_Plan], size: int) -> list[list[_Plan]]:
    """Groups of at most `size`, halved again and again along what saves most padding."""
    if len(plans) <= size:
        return [plans]
    half = -(-len(plans) // (2 * size)) * size
    rows = [(*_profile(plan), len(plan.member.widths), *plan.member.seed) for plan in plans]
    orders = [
        [plans[i] for i in sorted(range(len(plans)), key=lambda i: (rows[i][key], rows[i]))]
        for key in range(2 + max(_DEPTHS))
    ]
    best = min(orders, key=lambda order: _work(order[:half]) + _work(order[half:]))
    return [*_alike(best[:half], size), *_alike(best[half:], size)]


def shapes(member: Any) -> list[tuple[int, ...]]:
    """Shapes of a network's arrays in the order in which they are stored; of anything with `features` and `widths`."""
    sizes = (len(member.features), *member.widths)
    layers = [shape for a, b in zip(sizes, sizes[1:], strict=False) for shape in ((a, b), (b,))]
    return [*layers, (sizes[-1],), ()]


def _cost(member: Member) -> int:
    return sum(int(np.prod(shape)) for shape in shapes(member))


def _network(member: Member, arrays: Sequence[np.ndarray], d: int) -> Network:
    """A network on all d base features from its own arrays."""
    first = np.zeros((d, member.widths[0]), np.float32)
    first[member.features] = arrays[0]
    standards = np.zeros((2, d), np.float32)
    standards[:, member.features] = member.standards
    kernels: Any = (first, *(np.asarray(a, np.float32) for a in arrays[2:-2:2]))
    biases: Any = tuple(np.asarray(a, np.float32) for a in arrays[1:-2:2])
    readout: Any = np.asarray(arrays[-2], np.float32)
    offset: Any = np.asarray(arrays[-1], np.float32)
    plain: dict[str, Any] = {
        "center": standards[0],
        "scale": standards[1],
        "present": np.ones(len(kernels), bool),
        "log": np.bool_(member.log),
        **{name: np.float32(getattr(member, name)) for name in ("slope", "y_center", "y_scale")},
    }
    return Network(Weights(kernels, biases, readout, offset), **plain)


def unpack(member: Member, d: int) -> Network:
    """The network of a trained member, on all d base features; its arrays are NumPy's."""
    arrays, start = [], 0
    for shape in shapes(member):
        size = int(np.prod(shape))
        arrays.append(member.weights[start : start + size].reshape(shape))
        start += size
    return _network(member, arrays, d)


def stack(networks: Sequence[Network]) -> Network:
    """Networks padded with zeros to one shape and stacked along a first axis."""
    depth = max(len(network.present) for network in networks)
    wide = [[kernel.shape[1] for kernel in n.weights.kernels] for n in networks]
    wide = [row + row[-1:] * (depth - len(row)) for row in wide]  # a layer that is not there is as wide as its input
    pad = np.max(wide, axis=0)
    d = networks[0].center.shape[0]

    def padded(network: Network) -> Network:
        kernels, biases = [], []
        for layer, (rows, columns) in enumerate(zip((d, *pad), pad, strict=False)):
            kernel, bias = np.zeros((rows, columns), np.float32), np.zeros(columns, np.float32)
            if layer < len(network.present):
                own = network.weights.kernels[layer]
                kernel[: own.shape[0], : own.shape[1]] = own
                bias[: own.shape[1]] = network.weights.biases[layer]
            kernels.append(kernel)
            biases.append(bias)
        readout = np.zeros(pad[-1], np.float32)
        readout[: len(network.weights.readout)] = network.weights.readout
        weights: Any = Weights(tuple(kernels), tuple(biases), readout, network.weights.offset)  # type: ignore[arg-type]
        present: Any = np.arange(depth) < len(network.present)
        return eqx.tree_at(lambda n: (n.weights, n.present), network, (weights, present))

    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *map(padded, networks))


def _initial(plan: _Plan, rng: np.random.Generator) -> list[np.ndarray]:
    """Normal kernels of variance 2 / (inputs), as fits a rectifier; a small readout; biases of zero."""
    arrays = []
    for shape in shapes(plan.member):
        spread = np.sqrt(2 / shape[0]) if len(shape) == 2 else 0.0
        arrays.append(rng.normal(size=shape) * spread)
    arrays[-2] = rng.normal(size=arrays[-2].shape) / np.sqrt(len(arrays[-2]))
    return arrays


def _trained(x: Array, y: np.ndarray, plans: Sequence[_Plan], tick: Any) -> Network:
    """The stack after training; each network's batches, rates and first weights come from its own seed."""
    generators = [np.random.default_rng([*plan.member.seed, 1]) for plan in plans]
    nets = [_network(p.member, _initial(p, rng), x.shape[1]) for p, rng in zip(plans, generators, strict=True)]
    networks = stack(nets)
    steps = -(-max(plan.steps for plan in plans) // _CHUNK) * _CHUNK
    rows = np.stack([_batches(p, steps, rng) for p, rng in zip(plans, generators, strict=True)], 1)
    values = np.stack([_standardised(y, plan, rows[:, i]) for i, plan in enumerate(plans)], 1)
    rates = np.stack([_rates(plan, steps) for plan in plans], 1)
    decay = jnp.asarray([plan.member.weight_decay for plan in plans], jnp.float32)
    moments = jax.vmap(_ADAM.init)(networks.weights)
    for start in range(0, steps, _CHUNK):
        part = slice(start, start + _CHUNK)
        networks, moments = _advance(networks, moments, x, rows[part], values[part], rates[part], decay)
        jax.block_until_ready(networks)
        tick()
    return networks


def _batches(plan: _Plan, steps: int, rng: np.random.Generator) -> np.ndarray:
    """`(steps, batch)` rows: permutations of the training rows, one after the other; zero after the last step."""
    rows = np.zeros((steps, _BATCH), np.int32)
    passes = -(-plan.steps * _BATCH // len(plan.train))
    order = np.concatenate([rng.permutation(plan.train) for _ in range(passes)])
    rows[: plan.steps] = order[: plan.steps * _BATCH].reshape(-1, _BATCH)
    return rows


def _standardised(y: np.ndarray, plan: _Plan, rows: np.ndarray) -> np.ndarray:
    member = plan.member
    values = np.full(rows.shape, member.y_center)
    raw = y[rows[: plan.steps], member.target]
    values[: plan.steps] = np.log(raw) if member.log else raw
    return ((values - member.y_center) / member.y_scale).astype(np.float32)


def _rates(plan: _Plan, steps: int) -> np.ndarray:
    """`(steps,)` learning rates: a warm-up, a cosine to zero; zero where other networks of the stack go on."""
    schedule = Schedule(learning_rate=plan.member.learning_rate)
    done = [schedule.rate(step / plan.steps) for step in range(plan.steps)]
    return np.array([*done, *[0.0] * (steps - plan.steps)], np.float32)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _advance(
    networks: Network, moments: Any, x: Array, rows: Array, values: Array, rates: Array, decay: Array
) -> tuple[Network, Any]:
    """Some steps of AdamW on Huber's loss for every network of the stack, each on its own batch."""

    def loss(weights: Weights, network: Network, row: Array, value: Array) -> Array:
        made = replace(network, weights=weights).standardised(x[row])
        return optax.losses.huber_loss(made, value).mean()

    def one(
        weights: Weights, network: Network, moment: Any, row: Array, value: Array, rate: Array, decay: Array
    ) -> Any:
        gradient = jax.grad(loss)(weights, network, row, value)
        update, moment = _ADAM.update(gradient, moment)
        weights = weights._replace(kernels=tuple((1 - rate * decay) * kernel for kernel in weights.kernels))
        return jax.tree.map(lambda w, u: w - rate * u, weights, update), moment

    def step(carry: tuple[Weights, Any], batch: tuple[Array, Array, Array]) -> tuple[tuple[Weights, Any], None]:
        row, value, rate = batch
        return jax.vmap(one)(carry[0], networks, carry[1], row, value, rate, decay), None

    (weights, moments), _ = jax.lax.scan(step, (networks.weights, moments), (rows, values, rates))
    return replace(networks, weights=weights), moments


@jax.jit
def _standardised_of(networks: Network, x: Array, rows: Array) -> Array:
    return jax.vmap(lambda network, row: network.standardised(x[row]))(networks, rows)


def _judged(x: Array, y: np.ndarray, plans: Sequence[_Plan], networks: Network) -> list[Member]:
    """Members with their weights as they will be stored, and their errors on held-out rows."""
    arrays = jax.tree.map(np.asarray, networks.weights)
    members = [replace(p.member, weights=_packed(p.member, arrays, i)) for i, p in enumerate(plans)]
    stored = stack([unpack(member, x.shape[1]) for member in members])
    rows = np.zeros((len(plans), max(len(plan.held_out) for plan in plans)), np.int32)
    for row, plan in zip(rows, plans, strict=True):
        row[: len(plan.held_out)] = plan.held_out
    made = np.asarray(_standardised_of(stored, x, rows), np.float64)
    return [
        _with_errors(m, y[p.held_out, m.target], made[i]) for i, (m, p) in enumerate(zip(members, plans, strict=True))
    ]


def _packed(member: Member, arrays: Weights, index: int) -> np.ndarray:
    layers = len(member.widths)
    pairs = zip(arrays.kernels[:layers], arrays.biases[:layers], strict=True)
    padded = [*(a[index] for pair in pairs for a in pair), arrays.readout[index], arrays.offset[index]]
    padded[0] = padded[0][member.features]
    own = [a[tuple(slice(n) for n in shape)] for a, shape in zip(padded, shapes(member), strict=True)]
    flat = np.concatenate([np.ravel(a) for a in own]).astype(np.float16)
    if not np.isfinite(flat).all():
        raise BayesmatError(f"network {member.seed} has weights that are not finite after training")
    return flat


def _with_errors(member: Member, y: np.ndarray, standardised: np.ndarray) -> Member:
    made = member.y_center + member.y_scale * standardised[: len(y)]
    value = np.log(y) if member.log else y
    left = float(((value - made) ** 2).sum() / max(((value - value.mean()) ** 2).sum(), 1e-300))
    return replace(member, r2=1 - left, mae=float(np.abs(y - (np.exp(made) if member.log else made)).mean()))
