"""Where and with what something was measured, and how results are written; shared by the benchmarks."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("bayesmat", "jax", "numpyro", "equinox", "rdkit", "numpy", "scipy")


def machine(*packages: str) -> dict[str, Any]:
    """The processor, the load when this was called, and versions of the usual packages and those named."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "device": jax.devices()[0].device_kind,
        "compiled_programs_from_disk": bool(os.environ.get("JAX_COMPILATION_CACHE_DIR")),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        **{name: version(name) for name in (*PACKAGES, *packages)},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(path: Path, content: Any) -> None:
    """JSON with every list of numbers, and every short object of numbers and strings, on one line."""
    text = re.sub(r"[\[{][^][{}]*[]}]", _on_one_line, json.dumps(content, indent=1))
    path.write_text(text + "\n", encoding="utf-8")


def _on_one_line(found: re.Match[str]) -> str:
    line = re.sub(r"(?<=[\[{])\s+|\s+(?=[]}])", "", re.sub(r"\s*\n\s*", " ", found[0]))
    return line if line[0] == "[" or len(line) <= 100 else found[0]
