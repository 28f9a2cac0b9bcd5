"""The README does what it says: its Python runs, its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FENCE = re.compile(
    r"^(?P<skip><!-- no-test: \S.*? -->\s*\n)?```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```\s*$", re.M | re.S
)


class Block(NamedTuple):
    language: str
    line: int
    code: str


def blocks(text: str, *languages: str) -> list[Block]:
    """The fenced blocks of `text` in these languages, less those marked `<!-- no-test: reason -->`."""
    return [
        Block(match["language"], text.count("\n", 0, match.start("code")) + 1, match["code"])
        for match in FENCE.finditer(text)
        if match["language"] in languages and not match["skip"]
    ]


def commands(text: str) -> list[tuple[int, list[str]]]:
    """Line number and words of each shell command, continuation lines joined, prompt and comment removed."""
    found = []
    for block in blocks(text, "sh", "bash", "console", "shell"):
        number = block.line
        for line in re.split(r"(?<!\\)\n", block.code):
            joined = line.replace("\\\n", " ").strip().removeprefix("$ ")
            for part in re.split(r"&&|\|\||[;|]", joined):
                if words := shlex.split(part, comments=True):
                    found.append((number, words))
            number += line.count("\n") + 1
    return found


@pytest.fixture(scope="module")
def readme() -> str:
    if not README.exists():
        pytest.skip("README.md is missing: nothing to run")
    return README.read_text(encoding="utf-8")


def test_python_blocks_run(readme, tmp_path, monkeypatch):
    python = blocks(readme, "python")
    assert python, "README.md has no ```python block that is tested"
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in python:
        padded = "\n" * (block.line - 1) + block.code  # tracebacks name the README's own lines
        exec(compile(padded, str(README), "exec"), namespace)


def test_make_targets_exist(readme):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.M))
    for line, words in commands(readme):
        if words[0] == "make":
            named = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
            assert named <= targets, f"README.md:{line}: no such make target: {sorted(named - targets)}"


def test_commands_are_accepted(readme, capsys):
    calls = [(line, words) for line, words in commands(readme) if Path(words[0]).name == "bayesmat"]
    if not calls:
        pytest.skip("README.md shows no bayesmat command")
    from bayesmat import cli

    for line, words in calls:
        try:
            cli.parser().parse_args(words[1:])
        except SystemExit as stop:
            assert not stop.code, f"README.md:{line}: {shlex.join(words)}: {capsys.readouterr().err}"


def test_the_reader_of_blocks():
    text = (
        "# T\n```python\nx = 1\n```\n<!-- no-test: needs a GPU -->\n```python\nbad\n```\n"
        "```sh\nmake demo  # two minutes\n$ bayesmat design a.toml \\\n    --out 'b c'\ncd x && make test\n```\n"
    )
    assert blocks(text, "python") == [Block("python", 3, "x = 1\n")]
    assert commands(text) == [
        (10, ["make", "demo"]),
        (11, ["bayesmat", "design", "a.toml", "--out", "b c"]),
        (13, ["cd", "x"]),
        (13, ["make", "test"]),
    ]
