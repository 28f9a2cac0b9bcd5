"""The grammar automaton at work: which tokens it allowed at each place of a string, and what it kept in mind."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .. import chem
from .._types import Array
from ._canvas import BLUE, GRID, INK, ORANGE, Panel, compose


def grammar(tokens: np.ndarray | Array, alphabet: chem.Alphabet) -> Figure:
    """How a string was written under the mask: the legal tokens at each place, and the automaton's state.

    Args:
        tokens: `(length,)` one legal string.
        alphabet: its alphabet.
    """
    figure = compose(grammar_panels(tokens, alphabet), columns=1)
    figure.set_size_inches(8.0, 8.2)
    grid = figure.axes[0].get_gridspec()
    assert grid is not None
    grid.set_height_ratios([3, 1])
    return figure


def grammar_panels(tokens: np.ndarray | Array, alphabet: chem.Alphabet) -> tuple[Panel, ...]:
    """The mask and the state, a panel each."""
    string = jnp.asarray(tokens).astype(jnp.int32)

    def step(state: chem.State, token: Array) -> tuple[chem.State, tuple[Array, chem.State]]:
        after = chem.advance(state, token, alphabet)
        return after, (chem.legal(state, alphabet), after)

    masks, states = jax.tree.map(np.asarray, jax.lax.scan(step, chem.start(alphabet), string)[1])
    written = np.asarray(string)
    num = min(int((written != chem.END).sum()) + 1, len(written))  # with its END
    cells = masks[:num].astype(int).T
    cells[written[:num], np.arange(num)] = 2
    names = [alphabet.names[token] for token in written[:num]]

    def draw_mask(axes: Axes) -> None:
        axes.grid(False)
        axes.pcolormesh(cells, cmap=ListedColormap(["white", "#b9d6ea", ORANGE]), vmin=0, vmax=2, edgecolors=GRID,
                        linewidth=0.4)  # fmt: skip
        axes.set_yticks(np.arange(alphabet.num_tokens) + 0.5, alphabet.names, fontsize=7)
        axes.set_xticks(np.arange(num) + 0.5, names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("string, one token a column")
        axes.set_ylabel("token (orange: written, blue: also legal)")

    def draw_state(axes: Axes) -> None:
        place = np.arange(num) + 0.5
        for values, label, colour, style in (
            (states.free, "free valence", INK, "-"),
            (states.rings, "open rings", ORANGE, "-"),
            (states.depth, "open branches", BLUE, "--"),
        ):
            axes.step(place, values[:num], where="mid", color=colour, linestyle=style, label=label)
        axes.set_xlim(0, num)
        axes.set_xticks(place, names, fontsize=8)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("after this token")
        axes.set_ylabel("count (number)")
        axes.legend(loc="upper right", ncols=3)

    legal = masks[:num].sum(1)
    text = chem.to_smiles(written, alphabet)
    return (
        Panel(
            "Legal tokens",
            f"The mask over the next token for {text}: of {alphabet.num_tokens} tokens, between {legal.min()} and "
            f"{legal.max()} were legal at each of {num} places.",
            draw_mask,
        ),
        Panel(
            "What the automaton keeps in mind",
            f"Free valence, open rings (at most {states.rings.max()}) and open branches (at most "
            f"{states.depth.max()}) by token of {text}.",
            draw_state,
        ),
    )
