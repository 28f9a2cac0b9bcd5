"""The chemistry of `polymerise` as data: reactive groups, monomer classes, polymerisation rules.

A polymerisation is written as what becomes of each monomer, not as one reaction of two molecules: a monomer opens
into a residue with two free ends (terephthalic acid into -CO-C6H4-CO-, ethylene glycol into -O-CH2CH2-O-), and
residues are joined in turn, the second end of one to the first end of the next. So a rule is short to read, the
number of reactions run is the number of monomers and not of pairs, and head and tail of a chain are never guessed.

Patterns are SMARTS; atoms that keep their number in a reaction stay in the chain. `[1*]` and `[2*]` are the first
and the second end of a residue.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._types import BayesmatError

GROUPS = {
    "acid": "[#6][CX3](=[OX1])[OX2H1]",
    "acyl halide": "[#6][CX3](=[OX1])[Cl,Br]",
    "anhydride": "[#6;R](=[OX1])[#8;R][#6;R]=[OX1]",
    "hydroxyl": "[OX2H1][$([CX4;!$(C(O)[!#6])]),c]",
    "phenol": "[OX2H1]c",
    "thiol": "[SX2H1][CX4,c]",
    "primary amine": "[NX3;H2][$([CX4;!$(C(N)[!#6])]),c]",
    "secondary amine": "[NX3;H1;!$(N(c)c)]([CX4,c])[CX4,c]",
    "isocyanate": "[NX2]=[CX2]=[OX1]",
    "isothiocyanate": "[NX2]=[CX2]=[SX1]",
    "epoxide": "[CX4]1[OX2][CX4]1",
    "thiirane": "[CX4]1[SX2][CX4]1",
    "cyclic ether": "[OX2;r4,r5,r7;!$(O@C[O,N,S]);!$(O[CX3])]([CH2])[CX4;R]",
    "lactone": "[CX3;R](=[OX1])@[OX2;R;!$(O@C@[O,N,S]);!$(O(@C=O)@C=O)]@[CX4]",
    "lactam": "[CX3;R](=[OX1])@[NX3;H1;!$(N(@C=O)@C=[O,S])]@[CX4]",
    "cyclic carbonate": "[CX4]@[OX2;R][CX3;R](=[OX1])[OX2;R]@[CX4]",
    "olefin": "[CX3]=[CX3]",
    "vinyl": "[CX3H2]=[CX3]",
    "diene": "[CX3]=[CX3][CX3]=[CX3]",
    "cyclic olefin": "[CX4;r4,r5,r7,r8]@[CX3H1]=@[CX3H1]@[CX4;r4,r5,r7,r8]",
    "allene or ketene": "[#6]=[CX2]=[#6,#8]",
    "enol or quinone": "[$([OX2H1]C=C),$(O=C1C=CC(=O)C=C1),$(O=C1C(=O)C=CC=C1),$([NX3;H2]C=C)]",
    "alkyne": "[CX2]#[CX2]",
    "activated aryl halide": "[F,Cl,Br]-[c;$(c~1~a~a~c(~[$(C=O),$(S(=O)=O),$(P=O)])~a~a~1),"
    "$(c~1~c(~[$(C=O),$(S(=O)=O),$(P=O)])~a~a~a~a~1)]",
    "aryl bromide": "[Br]c",
    "chlorosilane": "[Si][Cl]",
    "sulfonyl halide": "[SX4](=[OX1])(=[OX1])[Cl,Br]",
    "phosgene": "Cl[CX3](=[OX1])Cl",
    "diphenyl carbonate": "c1([OX2]C(=O)[OX2]c2[cH][cH][cH][cH][cH]2)[cH][cH][cH][cH][cH]1",
    "water": "[OX2H2]",
    "sulfur dioxide": "O=[SX2]=O",
    "carbon monoxide": "[CX1-]#[OX1+]",
    "carbon dioxide": "[OX1]=[CX2]=[OX1]",
    "free thiophene": "[cH]1[cX3]~[cX3][cH]s1",
    "2,6-substituted phenol": "[OX2H1]c1c([#6,F,Cl,Br])[cH,$(c[#6])][cH][cH,$(c[#6])]c1[#6,F,Cl,Br]",
    "strained or halogenated olefin": "[$([CX3;r4,r5]=@[CX3]),$([CX3][F,Cl])]=[CX3]",
    "cyclic acetal": "[CX4]@[OX2]@[CH2]@[OX2]@[CX4]",
    "cyclic amine": "[CX4]@[NX3;r3,r4;!$(N*=[O,N,S])]@[CX4]",
    "aldehyde": "[$([CH2]),$([CH1][CX4])]=[OX1]",
    "hydrogen sulfide": "[SX2H2]",
    "aryl chloride": "[Cl]c",
    "unstable": "[$([NX2]=[OX1]),$([OX2][OX2]),$([#7]=[N+]=[N-]),$([#6]=[N+]=[N-]),$([NX3][F,Cl,Br,I]),"
    "$([OX2][N+](=O)[O-]),$([OX2][Cl,Br,I]),$([N+]#N)]",
    "steroid": "*~1~*~*~*~2~*(~*~1)~*~*~*~1~*~2~*~*~*~2~*~*~*~*~1~2",
}
"""Reactive groups by name; a monomer class may also name a pattern directly."""

NUCLEOPHILES = ("hydroxyl", "thiol", "primary amine", "secondary amine")
ACYLS = ("acid", "acyl halide", "anhydride")
UNWANTED = ("unstable", "steroid")
STRAINED = ("epoxide", "thiirane", "isocyanate", "isothiocyanate", "chlorosilane", "sulfonyl halide", *UNWANTED)


@dataclass(frozen=True)
class MonomerClass:
    """What a molecule must have to enter a chain, and how it does.

    Attributes:
        name: of the class, for people.
        groups: the reactive groups, one for each end or a single one that makes both; a molecule belongs to the
            class when it has exactly these, each as often as it is listed. Names of `GROUPS`, or SMARTS.
        opens: what becomes of the groups, as reaction SMARTS of one reactant and one product. One reaction that
            writes `[1*]` and `[2*]`, or two reactions that write one `*` each, for the first and the second end.
        forbidden: groups that would react as well, so a molecule that has any is ambiguous and left out.

    Raises:
        BayesmatError: there are not one or two reactions.
    """

    name: str
    groups: tuple[str, ...]
    opens: tuple[str, ...]
    forbidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.opens) not in (1, 2):
            raise BayesmatError(f"monomer class {self.name!r} has {len(self.opens)} reactions; allowed are 1 and 2")
        if not self.groups:
            raise BayesmatError(f"monomer class {self.name!r} names no reactive group")


@dataclass(frozen=True)
class PolymerRule:
    """A way to make a polymer from one monomer, or from two that alternate.

    Attributes:
        name: of the rule, for people.
        polymer_class: what the products are.
        monomers: one or two monomer classes; twice the same one means pairs of different molecules of it.
        lost: what is split off for each repeat unit, as SMILES; one of these. "" is nothing.
        share: of the most combinations that `polymerise` tries for one rule; below 1 for chemistry seldom used.

    Raises:
        BayesmatError: there are not one or two monomer classes.
    """

    name: str
    polymer_class: str
    monomers: tuple[MonomerClass, ...]
    lost: tuple[str, ...] = ("",)
    share: float = 1.0

    def __post_init__(self) -> None:
        if len(self.monomers) not in (1, 2):
            raise BayesmatError(f"rule {self.name!r} has {len(self.monomers)} monomer classes; allowed are 1 and 2")


OPEN_HYDROXYL = "[OX2H1;$(O[$([CX4;!$(C(O)[!#6])]),c]):1]>>*[O:1]"
OPEN_PHENOL = "[OX2H1;$(Oc):1]>>*[O:1]"
OPEN_THIOL = "[SX2H1;$(S[CX4,c]):1]>>*[S:1]"
OPEN_PRIMARY_AMINE = "[NX3;H2;$(N[$([CX4;!$(C(N)[!#6])]),c]):1]>>*[N:1]"
OPEN_SECONDARY_AMINE = "[NX3;H1;!$(N(c)c);$(N([CX4,c])[CX4,c]):1]>>*[N:1]"
OPEN_ACID = "[CX3;$(C[#6]):1](=[OX1:2])[OX2H1]>>[C:1](=[O:2])*"
OPEN_ACYL_HALIDE = "[CX3;$(C[#6]):1](=[OX1:2])[Cl,Br]>>[C:1](=[O:2])*"
OPEN_ISOCYANATE = "[NX2:1]=[CX2:2]=[OX1:3]>>[N:1][C:2](=[O:3])*"
OPEN_ISOTHIOCYANATE = "[NX2:1]=[CX2:2]=[SX1:3]>>[N:1][C:2](=[S:3])*"
OPEN_ANHYDRIDE = "[#6;R:1](=[OX1:2])[#8;R][#6;R:3]=[OX1:4]>>[#6:1](=[O:2])N(*)[#6:3]=[O:4]"
OPEN_ARYL_HALIDE = "[F,Cl,Br][c;" + GROUPS["activated aryl halide"].split("[c;")[1].removesuffix("]") + ":1]>>[c:1]*"


def _both(name: str, group: str, opens: str, *forbidden: str) -> MonomerClass:
    """A monomer with the same group at both ends."""
    return MonomerClass(name, (group, group), (opens, opens), forbidden)


# Condensation and addition: two groups a monomer.
DIOL = _both("diol", "hydroxyl", OPEN_HYDROXYL, *NUCLEOPHILES[1:], *ACYLS, *STRAINED)
DITHIOL = _both("dithiol", "thiol", OPEN_THIOL, "primary amine", "secondary amine", *ACYLS, *STRAINED)
PRIMARY_DIAMINE = _both("primary diamine", "primary amine", OPEN_PRIMARY_AMINE, "secondary amine", *ACYLS, *STRAINED)
SECONDARY_DIAMINE = _both(
    "secondary diamine", "secondary amine", OPEN_SECONDARY_AMINE, "primary amine", *ACYLS, *STRAINED
)
MIXED_DIAMINE = MonomerClass(
    "primary and secondary amine",
    ("primary amine", "secondary amine"),
    (OPEN_PRIMARY_AMINE, OPEN_SECONDARY_AMINE),
    (*ACYLS, *STRAINED),
)
DIACID = _both("diacid", "acid", OPEN_ACID, "acyl halide", "anhydride", *NUCLEOPHILES, *STRAINED)
DIACYL_HALIDE = _both("diacyl halide", "acyl halide", OPEN_ACYL_HALIDE, "acid", "anhydride", *NUCLEOPHILES, *STRAINED)
DIISOCYANATE = _both("diisocyanate", "isocyanate", OPEN_ISOCYANATE, *NUCLEOPHILES, *ACYLS, "isothiocyanate")
DIISOTHIOCYANATE = _both("diisothiocyanate", "isothiocyanate", OPEN_ISOTHIOCYANATE, *NUCLEOPHILES, *ACYLS, "isocyanate")
DIANHYDRIDE = _both("dianhydride", "anhydride", OPEN_ANHYDRIDE, "acyl halide", *NUCLEOPHILES[2:], *STRAINED)
DIHALIDE = _both("activated aryl dihalide", "activated aryl halide", OPEN_ARYL_HALIDE, *NUCLEOPHILES, *ACYLS)

# Rings made in the chain: the nitrogen of the isocyanate is written with the epoxide whose ring it closes.
EPOXIDE_RING = "[CX4;$([CH2]),$([CH1;R2]):1]1[OX2:2][CX4:3]1>>[C:1]1N(*)C(={})[O:2][C:3]1"
DIEPOXIDE = _both("diepoxide", "epoxide", EPOXIDE_RING.format("O"), *NUCLEOPHILES, *ACYLS)
DIEPOXIDE_SULFUR = _both("diepoxide", "epoxide", EPOXIDE_RING.format("S"), *NUCLEOPHILES, *ACYLS)
BARE_DIISOCYANATE = _both(
    "diisocyanate", "isocyanate", "[#6:1][NX2]=[CX2]=[OX1]>>[#6:1]*", *NUCLEOPHILES, *ACYLS, "isothiocyanate"
)
BARE_DIISOTHIOCYANATE = _both(
    "diisothiocyanate", "isothiocyanate", "[#6:1][NX2]=[CX2]=[SX1]>>[#6:1]*", *NUCLEOPHILES, *ACYLS, "isocyanate"
)
BARE_DIAMINE = _both(
    "primary diamine",
    "primary amine",
    "[NX3;H2][#6;$([CX4;!$(C(N)[!#6])]),$(c):1]>>[#6:1]*",
    *("secondary amine", *ACYLS, *STRAINED),
)

# Two different groups in one molecule.
HYDROXY_ACID = MonomerClass(
    "hydroxy acid",
    ("hydroxyl", "acid"),
    (OPEN_HYDROXYL, OPEN_ACID),
    (*NUCLEOPHILES[1:], *ACYLS[1:], *STRAINED),
)
AMINO_ACID = MonomerClass(
    "amino acid",
    ("primary amine", "acid"),
    (OPEN_PRIMARY_AMINE, OPEN_ACID),
    (*NUCLEOPHILES[1:2], "secondary amine", *ACYLS[1:], *STRAINED),
)
ANHYDRIDE_OF_DIACID = MonomerClass(
    "diacid", ("acid", "acid"), (OPEN_ACID, "[OX2H1;$(O[CX3]=[OX1]):1]>>*[O:1]"), DIACID.forbidden
)
BISPHENOL = _both("bisphenol", "phenol", OPEN_PHENOL, *NUCLEOPHILES[1:], *ACYLS, *STRAINED)

# Small molecules that link others.
PHOSGENE = MonomerClass("phosgene", ("phosgene",), ("Cl[CX3:1](=[OX1:2])Cl>>[1*][C:1](=[O:2])[2*]",))
DIPHENYL_CARBONATE = MonomerClass(
    "diphenyl carbonate", ("diphenyl carbonate",), ("c[OX2][CX3:1](=[OX1:2])[OX2]c>>[1*][C:1](=[O:2])[2*]",)
)
CARBON_MONOXIDE = MonomerClass(
    "carbon monoxide", ("carbon monoxide",), ("[CX1-:1]#[OX1+:2]>>[1*][C+0:1](=[O+0:2])[2*]",)
)
CARBON_DIOXIDE = MonomerClass(
    "carbon dioxide", ("carbon dioxide",), ("[OX1:1]=[CX2:2]=[OX1:3]>>[1*][O:1][C:2](=[O:3])[2*]",)
)
HYDROGEN_SULFIDE = MonomerClass("hydrogen sulfide", ("hydrogen sulfide",), ("[SX2H2:1]>>[1*][S:1][2*]",))
WATER = MonomerClass("water", ("water",), ("[OX2H2:1]>>[1*][O:1][2*]",))
SULFUR_DIOXIDE = MonomerClass(
    "sulfur dioxide", ("sulfur dioxide",), ("[OX1:1]=[SX2:2]=[OX1:3]>>[1*][S:2](=[O:1])(=[O:3])[2*]",)
)
DICHLOROSILANE = MonomerClass(
    "dichlorosilane",
    ("chlorosilane", "chlorosilane"),
    ("[Si:1][Cl]>>[Si:1]*", "[Si:1][Cl]>>[Si:1]*"),
    (*NUCLEOPHILES, *ACYLS, "isocyanate", "[Si;H1,H2,H3]"),
)
DISULFONYL_HALIDE = _both(
    "disulfonyl halide",
    "sulfonyl halide",
    "[SX4;$(S[#6]):1](=[OX1:2])(=[OX1:3])[Cl,Br]>>[S:1](=[O:2])(=[O:3])*",
    *NUCLEOPHILES,
    *ACYLS,
)

# Rings that open.
RING_RIVALS = (*NUCLEOPHILES, *ACYLS, "isocyanate", "isothiocyanate", "chlorosilane", "sulfonyl halide", *UNWANTED)
# Either carbon may be written next to the oxygen end: head to tail, the homopolymer is the same chain both ways.
EPOXIDE = MonomerClass(
    "epoxide",
    ("epoxide",),
    ("[CX4:1]1[OX2:2][CX4:3]1>>([2*][C:1][C:3][O:2][1*])",),
    (*RING_RIVALS, "thiirane", "lactone"),
)
THIIRANE = MonomerClass(
    "thiirane", ("thiirane",), ("[CX4:1]1[SX2:2][CX4:3]1>>([2*][C:1][C:3][S:2][1*])",), (*RING_RIVALS, "epoxide")
)
CYCLIC_ETHER = MonomerClass(
    "cyclic ether",
    ("cyclic ether",),
    ("[OX2;R:1]@[CH2:2]>>([1*][O:1].[2*][C:2])",),
    (*RING_RIVALS, "epoxide", "thiirane", "lactone", "cyclic carbonate"),
)
SINGLE_ANHYDRIDE = MonomerClass(
    "cyclic anhydride",
    ("anhydride",),
    ("[#6;R:1](=[OX1:2])@[#8;R:3]@[#6;R:4]=[OX1:5]>>([2*][C:1]=[O:2].[1*][O:3][C:4]=[O:5])",),
    (*NUCLEOPHILES, "acid", "acyl halide", *STRAINED),
)
LACTONE = MonomerClass(
    "lactone",
    ("lactone",),
    ("[CX3;R:1](=[OX1:2])@[OX2;R:3]>>([2*][C:1]=[O:2].[1*][O:3])",),
    (*RING_RIVALS, "epoxide", "lactam", "cyclic carbonate"),
)
LACTAM = MonomerClass(
    "lactam",
    ("lactam",),
    ("[CX3;R:1](=[OX1:2])@[NX3;H1;R:3]>>([2*][C:1]=[O:2].[1*][N:3])",),
    (*RING_RIVALS, "epoxide", "lactone"),
)
CYCLIC_CARBONATE = MonomerClass(
    "cyclic carbonate",
    ("cyclic carbonate",),
    ("[OX2;R:1]@[CX3;R:2](=[OX1:3])>>([1*][O:1].[2*][C:2]=[O:3])",),
    (*RING_RIVALS, "epoxide", "lactone"),
)
CYCLIC_ACETAL = MonomerClass(
    "cyclic acetal of formaldehyde",
    ("cyclic acetal",),
    ("[OX2;R:1]@[CH2:2]@[OX2;R:3]>>([1*][O:1].[2*][C:2][O:3])",),
    (*RING_RIVALS, "epoxide", "lactone"),
)
CYCLIC_AMINE = MonomerClass(
    "aziridine or azetidine",
    ("cyclic amine",),
    ("[NX3;R:1]@[CX4;!$(C([#6])([#6])[#6]):2]>>([1*][N:1].[2*][C:2])",),
    ("hydroxyl", "thiol", "primary amine", *ACYLS, *STRAINED),
)
METATHESIS = MonomerClass(
    "cyclic olefin for metathesis",
    ("cyclic olefin", "olefin"),
    ("[CX4;R:4]@[CX3H1;R:1]=@[CX3H1;R:2]@[CX4:5]>>([1*][C:4].[2*][C:1]=[C:2][C:5])",),
    ("alkyne", *RING_RIVALS[1:], "epoxide"),
)

# Carbon double and triple bonds.
CHAIN_RIVALS = ("allene or ketene", "enol or quinone", "thiol", *UNWANTED)
VINYL = MonomerClass(
    "vinyl or vinylidene",
    ("olefin", "vinyl"),
    ("[CX3H2:1]=[CX3:2]>>[1*][C:1][C:2][2*]",),
    ("alkyne", *CHAIN_RIVALS),
)
HOMOPOLYMERISING = MonomerClass(
    "strained or halogenated olefin",
    ("olefin", "strained or halogenated olefin"),
    ("[CX3;!H2:1]=[CX3;!H2:2]>>[1*][C:1][C:2][2*]",),
    ("alkyne", "vinyl", *CHAIN_RIVALS),
)
VINYLENE = MonomerClass(
    "1,2-substituted or halogenated olefin",
    ("olefin",),
    ("[CX3;!H2:1]=[CX3;!H2:2]>>[1*][C:1][C:2][2*]",),
    # Three or four substituents stop the addition unless they are fluorine or chlorine.
    ("alkyne", "vinyl", "[CX3;H0;!$(C[F,Cl])]=[CX3]", *CHAIN_RIVALS),
)
DIENE = MonomerClass(
    "1,3-diene",
    ("diene", "olefin", "olefin"),
    ("[CX3;$([CH2]),$([CH1]),$(C[F,Cl]):1]=[CX3:2][CX3:3]=[CX3:4]>>[1*][C:1][C:2]=[C:3][C:4][2*]",),
    ("alkyne", "[CX3;R]=[CX3][CX3]=[CX3;!R]", *CHAIN_RIVALS),
)
ALKYNE = MonomerClass(
    "alkyne",
    ("alkyne",),
    ("[CX2;$([CH1]):1]#[CX2:2]>>[1*][C:1]=[C:2][2*]",),
    ("olefin", *CHAIN_RIVALS, "primary amine", "secondary amine"),
)
ALDEHYDE = MonomerClass(
    "aliphatic aldehyde", ("aldehyde",), ("[CX3:1]=[OX1:2]>>[2*][C:1][O:2][1*]",), ("olefin", "alkyne", *RING_RIVALS)
)
DIENE_FOR_THIOL = _both(
    "diene for thiol addition", "olefin", "[CH2:1]=[CX3:2]>>*[C:1][C:2]", *NUCLEOPHILES[1:], *ACYLS, "diene", "alkyne"
)

# Aromatic coupling.
OXIDATIVE_PHENOL = MonomerClass(
    "2,6-substituted phenol",
    ("2,6-substituted phenol", "hydroxyl"),
    ("[OX2H1:1][c:2]~1~[c:3]~[c:4]~[cH:5]~[c:6]~[c:7]~1>>[1*][O:1][c:2]~1~[c:3]~[c:4]~[c:5]([2*])~[c:6]~[c:7]~1",),
    (*NUCLEOPHILES[1:], *ACYLS, *STRAINED),
)
ARYL_DIBROMIDE = _both("aryl dibromide", "aryl bromide", "[Br][c:1]>>[c:1]*", *NUCLEOPHILES[1:], *ACYLS, *STRAINED)
ARYL_DICHLORIDE = _both("aryl dichloride", "aryl chloride", "[Cl][c:1]>>[c:1]*", *NUCLEOPHILES, *ACYLS, *STRAINED)
THIOPHENE = MonomerClass(
    "thiophene with both positions free",
    ("free thiophene",),
    ("[cH:1]~1~[c:2]~[c:3]~[cH:4]~[s:5]~1>>[1*][c:1]~1~[c:2]~[c:3]~[c:4]([2*])~[s:5]~1",),
    (),
)

TWO_WATER = ("O.O",)
TWO_HALIDE = ("Cl.Cl", "Br.Br", "Cl.Br")
TWO_ARYL_HALIDE = ("F.F", "Cl.Cl", "Br.Br", "F.Cl", "F.Br", "Cl.Br")
RULES = (
    PolymerRule("vinyl addition", "polyolefin", (VINYL,)),
    PolymerRule("addition to strained and halogenated olefins", "polyolefin", (HOMOPOLYMERISING,)),
    PolymerRule("1,4-addition of dienes", "polyolefin", (DIENE,)),
    PolymerRule("ring-opening metathesis", "polyolefin", (METATHESIS,)),
    PolymerRule("alternating vinyl copolymer", "polyolefin", (VINYL, VINYL)),
    PolymerRule("alternating copolymer of a vinyl and a 1,2-substituted olefin", "polyolefin", (VINYL, VINYLENE)),
    PolymerRule("alternating copolymer of 1,2-substituted olefins", "polyolefin", (VINYLENE, VINYLENE), share=0.1),
    PolymerRule("alternating copolymer with carbon monoxide", "polyketone", (VINYL, CARBON_MONOXIDE), share=0.1),
    PolymerRule("polyacetylene", "polyacetylene", (ALKYNE,)),
    PolymerRule("diacid and diol", "polyester", (DIACID, DIOL), TWO_WATER),
    PolymerRule("diacid and dithiol", "polyester", (DIACID, DITHIOL), TWO_WATER, 0.1),
    PolymerRule("diacyl halide and diol", "polyester", (DIACYL_HALIDE, DIOL), TWO_HALIDE, 0.2),
    PolymerRule("diacyl halide and dithiol", "polyester", (DIACYL_HALIDE, DITHIOL), TWO_HALIDE, 0.1),
    PolymerRule("hydroxy acid", "polyester", (HYDROXY_ACID,), ("O",)),
    PolymerRule("lactone", "polyester", (LACTONE,)),
    PolymerRule("cyclic anhydride and epoxide", "polyester", (SINGLE_ANHYDRIDE, EPOXIDE), share=0.2),
    PolymerRule("epoxide and carbon monoxide", "polyester", (EPOXIDE, CARBON_MONOXIDE)),
    PolymerRule("diacid and primary diamine", "polyamide", (DIACID, PRIMARY_DIAMINE), TWO_WATER),
    PolymerRule("diacid and secondary diamine", "polyamide", (DIACID, SECONDARY_DIAMINE), TWO_WATER, 0.2),
    PolymerRule("diacid and mixed diamine", "polyamide", (DIACID, MIXED_DIAMINE), TWO_WATER, 0.1),
    PolymerRule("diacyl halide and primary diamine", "polyamide", (DIACYL_HALIDE, PRIMARY_DIAMINE), TWO_HALIDE, 0.2),
    PolymerRule(
        "diacyl halide and secondary diamine", "polyamide", (DIACYL_HALIDE, SECONDARY_DIAMINE), TWO_HALIDE, 0.1
    ),
    PolymerRule("amino acid", "polyamide", (AMINO_ACID,), ("O",)),
    PolymerRule("lactam", "polyamide", (LACTAM,)),
    PolymerRule("dianhydride and diamine", "polyimide", (DIANHYDRIDE, BARE_DIAMINE), TWO_WATER),
    PolymerRule("diisocyanate and diol", "polyurethane", (DIISOCYANATE, DIOL)),
    PolymerRule("diisocyanate and dithiol", "polyurethane", (DIISOCYANATE, DITHIOL), share=0.1),
    PolymerRule("diisothiocyanate and diol", "polyurethane", (DIISOTHIOCYANATE, DIOL), share=0.1),
    PolymerRule("diisothiocyanate and dithiol", "polyurethane", (DIISOTHIOCYANATE, DITHIOL), share=0.02),
    PolymerRule("diisocyanate and primary diamine", "polyurea", (DIISOCYANATE, PRIMARY_DIAMINE)),
    PolymerRule("diisocyanate and secondary diamine", "polyurea", (DIISOCYANATE, SECONDARY_DIAMINE), share=0.2),
    PolymerRule("diisothiocyanate and primary diamine", "polyurea", (DIISOTHIOCYANATE, PRIMARY_DIAMINE), share=0.1),
    PolymerRule("bisphenol and phosgene", "polycarbonate", (BISPHENOL, PHOSGENE), ("Cl.Cl",)),
    PolymerRule("diol and phosgene", "polycarbonate", (DIOL, PHOSGENE), ("Cl.Cl",)),
    PolymerRule("diol and diphenyl carbonate", "polycarbonate", (DIOL, DIPHENYL_CARBONATE), ("Oc1ccccc1.Oc1ccccc1",)),
    PolymerRule("cyclic carbonate", "polycarbonate", (CYCLIC_CARBONATE,)),
    PolymerRule("epoxide and carbon dioxide", "polycarbonate", (EPOXIDE, CARBON_DIOXIDE)),
    PolymerRule("epoxide", "polyether", (EPOXIDE,)),
    PolymerRule("cyclic ether", "polyether", (CYCLIC_ETHER,)),
    PolymerRule("cyclic acetal", "polyether", (CYCLIC_ACETAL,)),
    PolymerRule("aldehyde", "polyether", (ALDEHYDE,), share=0.02),
    PolymerRule("aziridine or azetidine", "polyamine", (CYCLIC_AMINE,)),
    PolymerRule("activated aryl dihalide and diol", "polyether", (DIHALIDE, DIOL), TWO_ARYL_HALIDE),
    PolymerRule("2,6-substituted phenol, oxidative coupling", "polyether", (OXIDATIVE_PHENOL,), ("[H][H]",)),
    PolymerRule("activated aryl dihalide and dithiol", "polysulfide", (DIHALIDE, DITHIOL), TWO_ARYL_HALIDE, 0.1),
    PolymerRule(
        "aryl dichloride and hydrogen sulfide", "polysulfide", (ARYL_DICHLORIDE, HYDROGEN_SULFIDE), ("Cl.Cl",), 0.02
    ),
    PolymerRule("thiirane", "polysulfide", (THIIRANE,)),
    PolymerRule("dithiol and diene", "polysulfide", (DITHIOL, DIENE_FOR_THIOL), share=0.2),
    PolymerRule("olefin and sulfur dioxide", "polysulfone", (VINYL, SULFUR_DIOXIDE), share=0.1),
    PolymerRule(
        "disulfonyl halide and primary diamine",
        "polysulfonamide",
        (DISULFONYL_HALIDE, PRIMARY_DIAMINE),
        TWO_HALIDE,
        0.1,
    ),
    PolymerRule("diepoxide and diisocyanate", "polyoxazolidone", (DIEPOXIDE, BARE_DIISOCYANATE), share=0.2),
    PolymerRule(
        "diepoxide and diisothiocyanate", "polyoxazolidone", (DIEPOXIDE_SULFUR, BARE_DIISOTHIOCYANATE), share=0.02
    ),
    PolymerRule("anhydride of a diacid", "polyanhydride", (ANHYDRIDE_OF_DIACID,), ("O",)),
    PolymerRule("dichlorosilane and water", "polysiloxane", (DICHLOROSILANE, WATER), ("Cl.Cl",)),
    PolymerRule("aryl dibromide, reductive coupling", "polyarylene", (ARYL_DIBROMIDE,), ("BrBr",)),
    PolymerRule("thiophene, oxidative coupling", "polyarylene", (THIOPHENE,), ("[H][H]",)),
)
