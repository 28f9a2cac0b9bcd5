"""Atom types of Wildman and Crippen 1999 (doi 10.1021/ci990307l), for logP and molar refractivity.

The rules are the patterns of RDKit in their order, written over counts of neighbours; the first that fits gives the
type. `A` is an aliphatic heavy atom, `a` an aromatic one, as in SMARTS.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .._types import Array
from ._environment import Environment

_TYPES: dict[str, tuple[float, float]] = {
    **{"none": (0.0, 0.0), "C1": (0.1441, 2.503), "C2": (0.0, 2.433), "C3": (-0.2035, 2.753)},
    **{"C4": (-0.2051, 2.731), "C5": (-0.2783, 5.007), "C6": (0.1551, 3.513), "C7": (0.0017, 3.888)},
    **{"C8": (0.08452, 2.464), "C9": (-0.1444, 2.412), "C10": (-0.0516, 2.488), "C11": (0.1193, 2.582)},
    **{"C12": (-0.0967, 2.576), "C13": (-0.5443, 4.041), "C14": (0.0, 3.257), "C15": (0.245, 3.564)},
    **{"C16": (0.198, 3.18), "C17": (0.0, 3.104), "C18": (0.1581, 3.35), "C19": (0.2955, 4.346)},
    **{"C20": (0.2713, 3.904), "C21": (0.136, 3.509), "C22": (0.4619, 4.067), "C23": (0.5437, 3.853)},
    **{"C24": (0.1893, 2.673), "C25": (-0.8186, 3.135), "C26": (0.264, 4.305), "C27": (0.2148, 2.693)},
    **{"CS": (0.08129, 3.243), "N1": (-1.019, 2.262), "N2": (-0.7096, 2.173), "N3": (-1.027, 2.827)},
    **{"N4": (-0.5188, 3.0), "N5": (0.08387, 1.757), "N6": (0.1836, 2.428), "N7": (-0.3187, 1.839)},
    **{"N8": (-0.4458, 2.819), "N9": (0.01508, 1.725), "N10": (-1.95, 0.0), "N11": (-0.3239, 2.202)},
    **{"N12": (-1.119, 0.0), "N13": (-0.3396, 0.2604), "N14": (0.2887, 3.359), "NS": (-0.4806, 2.134)},
    **{"O1": (0.1552, 1.08), "O2": (-0.2893, 0.8238), "O3": (-0.0684, 1.085), "O4": (-0.4195, 1.182)},
    **{"O5": (0.0335, 3.367), "O6": (-0.3339, 0.7774), "O7": (-1.189, 0.0), "O8": (0.1788, 3.135)},
    **{"O9": (-0.1526, 0.0), "O10": (0.1129, 0.2215), "O11": (0.4833, 0.389), "O12": (-1.326, 0.0)},
    **{"OS": (-0.1188, 0.6865), "F": (0.4202, 1.108), "Cl": (0.6895, 5.853), "Br": (0.8456, 8.927)},
    **{"I": (0.8857, 14.02), "Hal": (-2.996, 0.0), "P": (0.8612, 6.92), "S1": (0.6482, 7.591)},
    **{"S2": (-0.0024, 7.365), "S3": (0.6237, 6.691), "Me1": (-0.3808, 5.754)},
    **{"H1": (0.123, 1.057), "H2": (-0.2677, 1.395), "H3": (0.2142, 0.9627), "H4": (0.298, 1.805)},
    **{"HS": (0.1125, 1.112)},
}
"""logP and molar refractivity [cm3/mol] of each type."""

_INDEX = {name: index for index, name in enumerate(_TYPES)}
_VALUES = np.array(list(_TYPES.values()), np.float32)


def crippen(env: Environment) -> Array:
    """Crippen logP and molar refractivity [cm3/mol] of one molecule, `(2,)` float32."""
    values = jnp.asarray(_VALUES)
    heavy = _first([*_carbon_rules(env), *_nitrogen_rules(env), *_oxygen_rules(env), *_other_rules(env)])
    of_atoms = jnp.where(env.is_atom[:, None], values[heavy], 0)
    of_hydrogens = values[_first(_hydrogen_rules(env))] * env.hydrogens[:, None].astype(jnp.float32)
    return (of_atoms + of_hydrogens).sum(0)


def _first(rules: list[tuple[str, Array]]) -> Array:
    """The type of the first rule that holds for each atom."""
    result = jnp.zeros_like(rules[0][1], jnp.int32)
    for name, holds in reversed(rules):
        result = jnp.where(holds, _INDEX[name], result)
    return result


def _carbon_rules(env: Environment) -> list[tuple[str, Array]]:
    n, h, x = env.neighbours, env.hydrogens, env.degree + env.hydrogens
    aliphatic, aromatic = env.element(6) & ~env.aromatic, env.element(6) & env.aromatic
    two = aromatic & (n["ring a"] >= 2)
    rules = {
        "C1": (h == 4) | ((h == 3) & (n["-C"] >= 1)) | ((h == 2) & (n["-C"] >= 2)),
        "C2": ((h == 1) & (n["-C"] >= 3)) | (n["-C"] >= 4),
        "C3": (n["-X"] >= 1) & ((h == 3) | ((h == 2) & (x == 4) & (n["-A"] >= 2))),
        "C4": (n["-X"] >= 1) & (x == 4) & (((h == 1) & (n["-A"] >= 3)) | ((h == 0) & (n["-A"] >= 4))),
        "C5": n["=A"] > n["=C"],
        "C6": (n["=C"] >= 1) & ((h == 2) | ((h == 1) & (n["-A"] >= 1)) | ((h == 0) & (n["-A"] >= 2)))
        | (n["=C"] >= 2),
        "C7": (x == 2) & (n["#A"] >= 1),
        "C8": (h == 3) & (n["-c"] >= 1),
        "C9": (h == 3) & (n["-a"] >= 1),
        "C10": (h == 2) & (x == 4) & (n["-a"] >= 1),
        "C11": (h == 1) & (x == 4) & (n["-a"] >= 1),
        "C12": (h == 0) & (x == 4) & (n["-a"] >= 1),
    }  # fmt: skip
    of_ring = {
        "C13": (h == 0) & (n["-B,Si,P"] >= 1),
        "C14": n["-F"] >= 1,
        "C15": n["-Cl"] >= 1,
        "C16": n["-Br"] >= 1,
        "C17": n["-I"] >= 1,
        "C18": h == 1,
        "C19": n["ring a"] >= 3,
        "C20": two & (n["-a"] >= 1),
        "C21": two & (n["-C"] >= 1),
        "C22": two & (n["-N"] >= 1),
        "C23": two & (n["-O"] >= 1),
        "C24": two & (n["-S"] >= 1),
        "C25": two & (n["=C"] + n["=N"] + n["=O"] >= 1),
    }
    styrene = (n["=C"] >= 1) & (
        ((n["-a"] >= 1) & (n["-A"] >= 1)) | ((n["-c"] >= 1) & (n["-a"] >= 2)) | ((h == 1) & (n["-a"] >= 1))
    )
    last = {"C26": styrene | (n["=c"] >= 1), "C27": (x == 4) & (n["-B,Si,P"] > n["-P"])}
    return [
        *((name, aliphatic & holds) for name, holds in rules.items()),
        *((name, aromatic & holds) for name, holds in of_ring.items()),
        *((name, aliphatic & holds) for name, holds in last.items()),
        ("CS", env.element(6)),
    ]


def _nitrogen_rules(env: Environment) -> list[tuple[str, Array]]:
    n, h = env.neighbours, env.hydrogens
    nitrogen = env.element(7)
    aliphatic, neutral, cation = nitrogen & ~env.aromatic, env.charge == 0, env.charge > 0
    plain, plus = aliphatic & neutral, aliphatic & cation
    single, double = n["-A"] + n["-a"], n["=A"] + n["=a"]
    return [
        ("N1", plain & (h == 2) & (n["-A"] >= 1)),
        ("N2", plain & (h == 1) & (n["-A"] >= 2)),
        ("N3", plain & (h == 2) & (n["-a"] >= 1)),
        ("N4", plain & (h == 1) & (n["-a"] >= 1) & (single >= 2)),
        ("N5", plain & (h == 1) & (double >= 1)),
        ("N6", plain & (double >= 1) & (single >= 1)),
        ("N7", plain & (n["-A"] >= 3)),
        ("N8", plain & (((n["-a"] >= 1) & (n["-A"] >= 1) & (single >= 3)) | (n["-a"] >= 3))),
        ("N9", plain & (n["#A"] >= 1)),
        ("N10", plus & (h >= 1) & (h <= 3)),
        ("N11", nitrogen & env.aromatic & neutral),
        ("N12", nitrogen & env.aromatic & cation),
        ("N13", plus & (h == 0) & (n["-A"] >= 4)),
        ("N13", plus & (h == 0) & (n["=A"] >= 1) & (n["-A"] >= 1) & (single >= 2)),
        ("N13", plus & (h == 0) & (n["=#6"] >= 1) & (n["=#7"] >= 1)),
        ("N14", plus & (n["#A"] >= 1)),
        ("N14", aliphatic & (env.charge < 0)),
        ("N14", plus & (n["=N-"] >= 1) & (n["=N"] >= 2)),
        ("NS", nitrogen),
    ]


def _oxygen_rules(env: Environment) -> list[tuple[str, Array]]:
    n, h, x = env.neighbours, env.hydrogens, env.degree + env.hydrogens
    oxygen = env.element(8)
    aliphatic = oxygen & ~env.aromatic
    single = n["-A"] + n["-a"]
    oxide = aliphatic & (x == 1) & (env.charge < 0)
    return [
        ("O1", oxygen & env.aromatic),
        ("O2", aliphatic & ((h == 1) | (h == 2))),
        ("O3", aliphatic & (n["-A"] >= 2)),
        ("O4", aliphatic & (n["-a"] >= 1) & (single >= 2)),
        ("O5", aliphatic & (n["=#7"] + n["=#8"] >= 1)),
        ("O5", oxide & (n["-#7"] >= 1)),
        ("O6", oxide & (n["-#16"] >= 1)),
        ("O6", aliphatic & (env.charge == 0) & (n["=S0"] >= 1)),
        ("O12", aliphatic & (env.charge == -1) & (n["-carboxyl"] >= 1)),
        ("O7", oxide & (single > n["-N"] + n["-S"])),
        ("O8", aliphatic & (n["=c"] >= 1)),
        ("O9", aliphatic & (n["=O9"] >= 1)),
        ("O10", aliphatic & (n["=O10"] >= 1)),
        ("O11", aliphatic & (n["=O11"] >= 1)),
        ("OS", oxygen),
    ]


def _other_rules(env: Environment) -> list[tuple[str, Array]]:
    halogen = env.element(9) | env.element(17) | env.element(35) | env.element(53)
    sulfur, n = env.element(16), env.neighbours
    charged = env.charge != 0
    oxidised = n["=N"] + n["=O"] + n["=P"] + n["=S"] >= 1
    metal = env.element(5)
    for number in (14, 32, 33, 34, 52):
        metal = metal | env.element(number)
    return [
        ("Hal", halogen & charged),
        ("F", env.element(9)),
        ("Cl", env.element(17)),
        ("Br", env.element(35)),
        ("I", env.element(53)),
        ("P", env.element(15)),
        ("S2", sulfur & ~env.aromatic & (charged | oxidised)),
        ("S1", sulfur & ~env.aromatic),
        ("S3", sulfur & env.aromatic),
        ("Me1", metal),
    ]


def _hydrogen_rules(env: Environment) -> list[tuple[str, Array]]:
    """The type of the hydrogens of each atom."""
    n = env.neighbours
    hydroxyl = env.element(8) & ~env.aromatic
    return [
        ("H1", env.element(6)),
        ("H2", hydroxyl & ((n["-CX4,c"] >= 1) | (n["-not C,N,O,S"] >= 1) | (env.hydrogens >= 2))),
        ("H2", ~(env.element(7) | env.element(8))),
        ("H3", env.element(7)),
        ("H3", hydroxyl & (n["-#7"] >= 1)),
        ("H4", hydroxyl & (n["-C=C,N,O,S"] + n["-O"] + n["-S"] >= 1)),
        ("HS", env.element(8)),
    ]
