"""The grammar automaton: which tokens may come next, and what each one does.

`advance(state, token)` and `legal(state)` take one string, to be mapped over many by `jax.vmap`; or a batch of them as
the last axis of every array, which is how a loop over tokens runs fastest on a CPU.
Every string that is written token by token under the mask of `legal` and ended by `END` is a molecule:
valences are kept, branches and rings are closed, no bond is written twice.

There are no dead ends. `_cost` is the number of tokens that one fixed way of finishing needs (carbon atoms that
close one ring each, then the open branches); a token is legal only if the cost after it fits in the tokens left,
and each step of that way lowers the cost by at least one, so a legal token always exists.

Two habits remove strings that say the same: ring tokens follow their atom at once, closings before openings; and
a branch is always followed by something, as in the strings that RDKit writes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .._types import Array
from ._alphabet import (
    KIND_ATOM,
    KIND_BOND,
    KIND_CLOSE,
    KIND_END,
    KIND_OPEN,
    KIND_RING_CLOSE,
    KIND_RING_OPEN,
    Alphabet,
)

# What was written last. OPENED: a ring was opened at this atom, so none may be closed at it any more.
START, ATOM, OPENED, BRANCH, RETURNED, BOND, BOND_RETURNED, BOND_BRANCH, DONE = range(9)

NONE = -1
_MANY = 99


class State(NamedTuple):
    """A prefix, as far as the rest of the string depends on it. Scalars int32 unless a shape is given.

    Of many prefixes at once every array has their axes at its end.

    Attributes:
        position: tokens written.
        phase: what was written last, one of the constants of this module.
        free: valence of the current atom that is not used yet.
        order: order of the bond to be made next.
        atom: position of the current atom's token, -1 before the first.
        depth: open branches.
        stack_free: `(max_depth,)` free valence of the atoms to return to.
        stack_atom: `(max_depth,)` their positions.
        rings: open rings.
        ring_order: `(max_rings,)` order of each open ring's bond, most recently opened ring first.
        ring_atom: `(max_rings,)` position of the atom that opened it.
        ring_blocked: `(max_rings,)` bool, rings that the current atom may not close: it is bonded to their atom.
        attachments: attachment points still to be written.
    """

    position: Array
    phase: Array
    free: Array
    order: Array
    atom: Array
    depth: Array
    stack_free: Array
    stack_atom: Array
    rings: Array
    ring_order: Array
    ring_atom: Array
    ring_blocked: Array
    attachments: Array


def start(alphabet: Alphabet, batch: tuple[int, ...] = ()) -> State:
    """The state of the empty string, or of a batch of them."""

    def scalar(value: int) -> Array:
        return jnp.full(batch, value, jnp.int32)

    branches = jnp.zeros((alphabet.max_depth, *batch), jnp.int32)
    rings = jnp.zeros((alphabet.max_rings, *batch), jnp.int32)
    return State(
        position=scalar(0),
        phase=scalar(START),
        free=scalar(0),
        order=scalar(1),
        atom=scalar(NONE),
        depth=scalar(0),
        stack_free=branches,
        stack_atom=branches,
        rings=scalar(0),
        ring_order=rings,
        ring_atom=rings,
        ring_blocked=rings.astype(bool),
        attachments=scalar(alphabet.attachments),
    )


def _is(phase: Array, *members: int) -> Array:
    """Whether the phase is one of `members`."""
    found = phase == members[0]
    for member in members[1:]:
        found = found | (phase == member)
    return found


def legal(state: State, alphabet: Alphabet) -> Array:
    """The mask of tokens that may come next, `(num_tokens, ...)` bool; only `END` after the end."""
    others = [
        _bond_legal(state, 2, alphabet),
        _bond_legal(state, 3, alphabet),
        _open_legal(state, alphabet),
        _close_legal(state, alphabet),
        _ring_open_legal(state, alphabet),
    ]
    return jnp.concatenate([
        _end_legal(state)[None], _atom_legal(state, alphabet), jnp.stack(others), _ring_close_legal(state)
    ])  # fmt: skip


def _end_legal(state: State) -> Array:
    complete = (state.depth == 0) & (state.rings == 0) & (state.attachments == 0)
    return (_is(state.phase, ATOM, OPENED) & complete) | (state.phase == DONE)


def _budget(state: State, alphabet: Alphabet) -> Array:
    """Tokens left after the next one."""
    return alphabet.length - state.position - 1


def _owns_all_rings(state: State, atom: Array) -> Array:
    """Whether every open ring was opened by `atom`, whose next neighbour then cannot close any."""
    index = indices(state.ring_atom.shape[0], atom)
    return ((state.ring_atom == atom) | (index >= state.rings)).all(0)


def _cost(state: State, depth: Array, rings: Array, ring_cost: Array, needs_atom: Array | int) -> Array:
    """Tokens of the fixed way of finishing; without open rings a phase that needs an atom costs that atom."""
    return 2 * depth + jnp.where(rings > 0, ring_cost, needs_atom) + state.attachments


def _atom_legal(state: State, alphabet: Alphabet) -> Array:
    """`(number of atom tokens, ...)` bool. An atom is legal from some valence on, so one number decides for all."""

    def of_atoms(table: np.ndarray) -> Array:
        values = jnp.asarray(table[1 : len(alphabet.atoms) + 1])
        return values.reshape(-1, *[1] * state.position.ndim)

    valence = of_atoms(alphabet.valence)
    least = _least_valence(state, state.attachments, alphabet)
    if not alphabet.attachments:
        return valence >= least
    # A repeat unit begins with an attachment point; the second does not sit on the first.
    point = of_atoms(alphabet.is_attachment) == 1
    first = state.phase == START
    least_point = _least_valence(state, state.attachments - 1, alphabet)
    point_fits = (valence >= least_point) & (state.attachments > 0) & (first | (state.position > 1))
    return jnp.where(point, point_fits, (valence >= least) & ~first)


def _least_valence(state: State, attachments: Array, alphabet: Alphabet) -> Array:
    """The least valence that the next atom needs, with `attachments` left after it; above all valences if none fits."""
    first = state.phase == START
    order = jnp.where(first, 0, state.order)
    reserve = starts_branch(state).astype(jnp.int32)  # the chain goes on after a branch
    fits = (first | (state.free - order >= reserve)) & (state.phase != DONE)
    must_go_on = (state.depth == 0) & ((state.rings > 0) | (attachments > 0))
    # If the new atom can close a ring at once, finishing costs one token less.
    closable = (indices(alphabet.max_rings, state.rings) < state.rings) & (state.ring_atom != state.atom)
    ring_order = jnp.where(closable, state.ring_order, _MANY).min(0)
    goes_on_after = (state.depth == 0) & ((state.rings > 1) | (attachments > 0))
    extra = first & (state.attachments > 0)  # after the first `*` an atom must stand before the second
    cost = 2 * state.depth + 2 * state.rings + attachments + extra
    spare = _budget(state, alphabet) - cost
    least = order + jnp.where(spare >= 0, must_go_on, ring_order + goes_on_after)
    return jnp.where(fits & (spare >= -1), jnp.maximum(least, order + must_go_on), _MANY)


def _bond_legal(state: State, order: int, alphabet: Alphabet) -> Array:
    reserve = (state.phase == BRANCH).astype(jnp.int32)
    allowed = _is(state.phase, ATOM, OPENED, BRANCH, RETURNED) & (state.free - order >= reserve)
    cost = _cost(state, state.depth, state.rings, 2 * state.rings + 1, 1)
    return allowed & (cost <= _budget(state, alphabet))


def _open_legal(state: State, alphabet: Alphabet) -> Array:
    allowed = _is(state.phase, ATOM, OPENED, RETURNED) & (state.free >= 2) & (state.depth < alphabet.max_depth)
    ring_cost = 2 * state.rings + _owns_all_rings(state, state.atom)
    return allowed & (_cost(state, state.depth + 1, state.rings, ring_cost, 1) <= _budget(state, alphabet))


def _close_legal(state: State, alphabet: Alphabet) -> Array:
    allowed = _is(state.phase, ATOM, OPENED) & (state.depth > 0)
    parent = _top(state.stack_atom, state.depth)
    ring_cost = 2 * state.rings + _owns_all_rings(state, parent)
    return allowed & (_cost(state, state.depth - 1, state.rings, ring_cost, 1) <= _budget(state, alphabet))


def _ring_open_legal(state: State, alphabet: Alphabet) -> Array:
    free = state.free - state.order
    allowed = _is(state.phase, ATOM, OPENED, BOND) & (state.rings < alphabet.max_rings)
    allowed &= (free >= (state.depth == 0)) & (state.order <= 2)
    blocks_next = _owns_all_rings(state, state.atom) & (free >= 1)
    cost = _cost(state, state.depth, state.rings + 1, 2 * (state.rings + 1) + blocks_next, 0)
    return allowed & (cost <= _budget(state, alphabet))


def _ring_close_legal(state: State) -> Array:
    """`(max_rings, ...)` bool, most recently opened ring first."""
    goes_on = (state.depth == 0) & ((state.rings > 1) | (state.attachments > 0))
    index = indices(state.ring_order.shape[0], state.rings)
    allowed = (index < state.rings) & ~state.ring_blocked & (state.free - state.ring_order >= goes_on)
    return allowed & (state.phase == ATOM)


def _top(stack: Array, depth: Array) -> Array:
    """The innermost entry of a stack."""
    return jnp.where(indices(stack.shape[0], depth) == depth - 1, stack, 0).sum(0)


def indices(size: int, like: Array) -> Array:
    """0 … size - 1 along a new first axis, to be compared with `like`."""
    return jnp.arange(size, dtype=jnp.int32).reshape(size, *[1] * like.ndim)


def closed_ring(token: Array, alphabet: Alphabet) -> Array:
    """The index in the ring table of the ring that a closing token closes; negative for other tokens."""
    return token - alphabet.first_ring_close_token


_NEXT_BOND = {START: START, ATOM: BOND, OPENED: BOND, BRANCH: BOND_BRANCH, RETURNED: BOND_RETURNED}


def advance(state: State, token: Array, alphabet: Alphabet) -> State:
    """The state after `token`, which must be legal. `END` leads to a state in which only `END` is legal."""
    kind = jnp.asarray(alphabet.kind)[token]
    end, atom, bond = kind == KIND_END, kind == KIND_ATOM, kind == KIND_BOND
    opens, closes = kind == KIND_OPEN, kind == KIND_CLOSE
    ring_opens, ring_closes = kind == KIND_RING_OPEN, kind == KIND_RING_CLOSE
    branches, rings = indices(alphabet.max_depth, token), indices(alphabet.max_rings, token)

    order = jnp.where(state.phase == START, 0, state.order)
    left = state.free - order
    top_free, top_atom = _top(state.stack_free, state.depth), _top(state.stack_atom, state.depth)

    first_of_branch = atom & starts_branch(state)
    stack_free = jnp.where(opens & (branches == state.depth), state.free, state.stack_free)
    stack_free = jnp.where(first_of_branch & (branches == state.depth - 1), left, stack_free)
    stack_atom = jnp.where(opens & (branches == state.depth), state.atom, state.stack_atom)

    ring = closed_ring(token, alphabet)
    chosen = rings == ring
    partner = jnp.where(chosen, state.ring_atom, 0).sum(0)
    ring_bond = jnp.where(chosen, state.ring_order, 0).sum(0)
    ring_order = update_rings(state.ring_order, ring, ring_opens, state.order)
    ring_atom = update_rings(state.ring_atom, ring, ring_opens, state.atom)
    blocked = state.ring_blocked | (ring_closes & (state.ring_atom == partner))
    ring_blocked = jnp.where(atom, state.ring_atom == state.atom, update_rings(blocked, ring, ring_opens, True))

    free = jnp.where(atom, jnp.asarray(alphabet.valence)[token] - order, state.free)
    free = jnp.where(closes, top_free, free)
    free = jnp.where(ring_opens, left, free) - ring_bond
    next_bond = jnp.asarray([_NEXT_BOND.get(phase, BOND) for phase in range(DONE + 1)])[state.phase]
    next_phase = jnp.asarray([DONE, ATOM, 0, BRANCH, RETURNED, OPENED, ATOM])[kind]
    after = State(
        position=state.position + ~end,
        phase=jnp.where(bond, next_bond, next_phase).astype(jnp.int32),
        free=free,
        order=jnp.where(bond, jnp.asarray(alphabet.bond_order)[token], 1),
        atom=jnp.where(atom, state.position, jnp.where(closes, top_atom, state.atom)),
        depth=state.depth + opens - closes,
        stack_free=stack_free,
        stack_atom=stack_atom,
        rings=state.rings + ring_opens - ring_closes,
        ring_order=ring_order,
        ring_atom=ring_atom,
        ring_blocked=ring_blocked,
        attachments=state.attachments - jnp.asarray(alphabet.is_attachment)[token],
    )
    # With 64-bit types enabled, sums widen; a scan's carry must keep its types.
    return State(*(new.astype(old.dtype) for new, old in zip(after, state, strict=True)))


def update_rings(table: Array, closed: Array, opens: Array, value: Array | bool) -> Array:
    """A ring table, newest ring first, after a token: without the entry `closed` (if ≥ 0), or with a new first one."""
    index = indices(table.shape[0], closed)
    removed = jnp.where((closed >= 0) & (index >= closed), jnp.roll(table, -1, axis=0), table)
    pushed = jnp.where(index == 0, value, jnp.roll(table, 1, axis=0))
    return jnp.where(opens, pushed, removed)


def starts_branch(state: State) -> Array:
    """Whether the next atom is the first of a branch."""
    return _is(state.phase, BRANCH, BOND_BRANCH)
