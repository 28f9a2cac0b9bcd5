"""The architecture, enforced: who may import whom, which library lives where, and how long a file may be."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (  # from the top; a module imports only what stands strictly lower, or its own package
    {"cli"},
    {"plot", "report"},
    {"design"},
    {"prior", "forward"},
    {"nn", "data"},
    {"chem", "infer", "smc"},
)
RANK = {name: len(LAYERS) - depth for depth, names in enumerate(LAYERS) for name in names}
GROUND = 0  # every `_module.py` at the top level
SUMMIT = len(LAYERS)  # bayesmat/__init__.py, which the command line may import

EXCEPTIONS = {("report", "plot"): "figures are embedded in the report, so it stays one file"}
NEVER = {("infer", "chem"), ("smc", "chem"), ("prior", "forward"), ("forward", "prior")}  # even were LAYERS to change

OWNERS = {  # library → where it may be imported
    "rdkit": re.compile(r"chem/_rdkit\.py"),
    "arviz": re.compile(r"_arviz\.py"),
    "matplotlib": re.compile(r"plot/.*"),
}
UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {"eval", "exec"}
UNSAFE_METHODS = {"read_pickle", "to_pickle"}
READERS = {"_types.py": {"calls np.load"}}  # stored arrays are read in one place, which refuses objects

MAX_FILE_LINES = 600
MAX_README_LINES = 150


class Import(NamedTuple):
    line: int
    target: str  # absolute dotted name; of `from a import b`, a.b where a is the root package, else a


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[Import]:
    """Every import of a module, those inside functions and `import_module("literal")` included."""
    parts = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = parts if is_package else parts[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source == parts[0]:
                yield from (Import(node.lineno, f"{source}.{alias.name}") for alias in node.names)
            else:
                yield Import(node.lineno, source)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if _called(node) in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                name = node.args[0].value
                yield Import(node.lineno, name if not name.startswith(".") else f"{parts[0]}.{name.lstrip('.')}")


def _called(node: ast.Call) -> str:
    return getattr(node.func, "id", None) or getattr(node.func, "attr", "")


def _unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, is_name = _called(node), isinstance(node.func, ast.Name)
        owner = getattr(getattr(node.func, "value", None), "id", None)
        if name in UNSAFE_CALLS and (is_name or owner == "builtins"):
            yield node.lineno, f"calls {name}"
        elif any(k.arg == "allow_pickle" and getattr(k.value, "value", True) is not False for k in node.keywords):
            yield node.lineno, "allows pickle"
        elif name == "load" and owner in ("np", "numpy"):
            yield node.lineno, "calls np.load"
        elif name in UNSAFE_METHODS:
            yield node.lineno, f"calls {name}"


def _rank(layer: str) -> int | None:
    """Height of a first-level name of bayesmat; `""` is the root package; None is a stranger."""
    if not layer:
        return SUMMIT
    return RANK.get(layer, GROUND if layer.startswith("_") else None)


def _forbidden(layer: str, target: str, package: Path) -> str | None:
    """Why a module of `layer` may not import `target` (a dotted name inside bayesmat), or None."""
    name = target.split(".")[1] if "." in target else ""
    if name not in RANK and not ((package / name).is_dir() or (package / f"{name}.py").is_file()):
        name = ""  # a name defined in bayesmat/__init__.py
    if name == layer or (layer, name) in EXCEPTIONS or (layer and name == "_types"):
        return None  # `_types` is the ground of the ground floor
    if name and _rank(name) is None:
        return f"imports {target}, which stands in no layer"
    above, below = _rank(layer), _rank(name)
    if not layer:
        return "imports the command line" if name == "cli" else None
    if not name:
        return None if layer == "cli" else f"imports {target} from the root package"
    if above is None:
        return "stands in no layer"
    if (layer, name) in NEVER or below >= above:
        return f"imports {target}: {layer} may not import {name}"
    return None


def violations(package: Path) -> list[str]:
    """What the modules under `package` do against the architecture, as `file:line: what`."""
    found: list[str] = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        is_package = path.name == "__init__.py"
        dotted = [package.name, *inside.with_suffix("").parts]
        module = ".".join(dotted[:-1] if is_package else dotted)
        layer = "" if inside.as_posix() == "__init__.py" else Path(inside.parts[0]).stem
        if _rank(layer) is None:
            found.append(f"{inside}:1: {layer} stands in no layer")
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        unsafe = [what for what in _unsafe(tree) if what[1] not in READERS.get(inside.as_posix(), ())]
        found += [f"{inside}:{line}: {what}" for line, what in unsafe]
        for line, target in imports(tree, module, is_package):
            library = target.split(".")[0]
            if library == package.name:
                why = _forbidden(layer, target, package)
            elif library in OWNERS and not OWNERS[library].fullmatch(inside.as_posix()):
                why = f"imports {library}"
            elif library in UNSAFE_MODULES:
                why = f"imports {library}"
            else:
                why = None
            if why:
                found.append(f"{inside}:{line}: {why}")
    return found


def test_architecture():
    assert not violations(ROOT / "bayesmat")


GOOD = {
    "__init__.py": "from . import chem as chem\nfrom ._types import Array as Array\n",
    "_types.py": "import jax\nArray = jax.Array\nnp.load(p, allow_pickle=False)\n",
    "chem/__init__.py": "from ._rdkit import parse as parse\n",
    "chem/_rdkit.py": "from rdkit import Chem\nfrom .._types import Array\nfrom .. import _types\ndef parse(): ...\n",
    "_arviz.py": "def f():\n    import arviz\n",
    "plot/__init__.py": "import matplotlib.pyplot as plt\n",
    "report/_html.py": "from .. import design, plot\n",
    "cli/__init__.py": "import bayesmat as bm\nfrom bayesmat import design\n",
    "design/_inverse.py": "from ..smc import SMC\nfrom bayesmat.prior._ngram import NGram\n",
    "smc/_core.py": "import jax\njax.eval_shape(f)\n",
    "prior/_ngram.py": "def log_prob(): ...\n",
}


def _write(package: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def test_checker_accepts_a_good_package(tmp_path):
    assert violations(_write(tmp_path / "bayesmat", GOOD)) == []


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("chem/bad.py", "from .. import design\n", "chem may not import design"),
        ("chem/bad.py", "from bayesmat.prior import NGram\n", "chem may not import prior"),
        (
            "smc/bad.py",
            "def f():\n    from ..chem import parse\n",
            ":2: imports bayesmat.chem: smc may not import chem",
        ),
        ("infer/bad.py", "import bayesmat.chem._rdkit\n", "infer may not import chem"),
        ("infer/bad.py", "import_module('bayesmat.smc')\n", "infer may not import smc"),
        ("prior/deep/bad.py", "from ...forward import fit\n", "prior may not import forward"),
        ("forward/bad.py", "from ..prior._ngram import NGram\n", "forward may not import prior"),
        ("plot/bad.py", "from ..report import html\n", "plot may not import report"),
        ("_bad.py", "from . import chem\n", "_bad may not import chem"),
        ("design/bad.py", "import bayesmat\n", "from the root package"),
        ("design/bad.py", "from .. import __version__\n", "from the root package"),
        ("design/bad.py", "from ..cli import main\n", "design may not import cli"),
        ("__init__.py", "from . import cli\n", "imports the command line"),
        ("utils/bad.py", "import jax\n", "utils stands in no layer"),
        ("chem/bad.py", "from rdkit.Chem import AllChem\n", "imports rdkit"),
        ("report/bad.py", "import matplotlib.pyplot\n", "imports matplotlib"),
        ("forward/bad.py", "import arviz as az\n", "imports arviz"),
        ("infer/bad.py", "import arviz as az\n", "imports arviz"),
        ("nn/bad.py", "from pickle import loads\n", "imports pickle"),
        ("nn/bad.py", "x = eval('1')\n", "calls eval"),
        ("nn/bad.py", "np.load(path, allow_pickle=True)\n", "allows pickle"),
        ("nn/bad.py", "np.load(path, allow_pickle=False)\n", "calls np.load"),
        ("_types.py", "np.load(path, allow_pickle=True)\n", "allows pickle"),
    ],
)
def test_checker_refuses(tmp_path, name, text, what):
    found = violations(_write(tmp_path / "bayesmat", GOOD | {name: text}))
    assert any(what in line for line in found), found


def test_dependencies_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines)
    declared = {re.match(r"[\w.-]+", line)[0].lower() for line in (*project["dependencies"], *extras)}
    for path in (ROOT / "bayesmat").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        used = {
            target.split(".")[0] for _, target in imports(tree, module.removesuffix(".__init__"), "__init__" in module)
        }
        strangers = used - declared - sys.stdlib_module_names - {"bayesmat"}
        assert not strangers, f"{path.relative_to(ROOT)} imports {sorted(strangers)}, not declared in pyproject.toml"


def test_exported_names_have_docstrings():
    """Ruff passes over underscore modules, so what an `__init__.py` exports from them is checked here."""
    bare = []
    for init in (ROOT / "bayesmat").rglob("__init__.py"):
        for node in ast.parse(init.read_text(encoding="utf-8")).body:
            if not (isinstance(node, ast.ImportFrom) and node.level == 1 and node.module):
                continue
            source = init.parent / f"{node.module.replace('.', '/')}.py"
            if not source.is_file():
                continue
            exported = {alias.name for alias in node.names}
            for item in ast.parse(source.read_text(encoding="utf-8")).body:
                if isinstance(item, ast.FunctionDef | ast.ClassDef) and item.name in exported:
                    if not ast.get_docstring(item):
                        bare.append(f"{source.relative_to(ROOT)}:{item.lineno}: {item.name}")
    assert not bare


def test_files_stay_readable():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("bayesmat", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert lengths
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}
    assert not too_long, f"over {MAX_FILE_LINES} lines: {too_long}"


def test_readme_stays_short():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("README.md is missing")
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES
