"""Check the language of code, documentation and help texts: `python test/language.py [PATH...]`.

Two rules that a program can check: no docstring starts with a word that makes it a fragment, and
no comment, docstring, message or page uses a word that this project replaces by a plainer one.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("emu_perception", "launch", "examples", "setup.py")
PAGES = ("README.md", "CHANGELOG.rst", "CONTRIBUTING.md", "SECURITY.md", "docs", "config", "models")
FRAGMENT = re.compile(r"(Of|What|Such|Those|Whose|Where|As)\b")
PLAINER = {
    r"says?": "outputs, contains, states",
    r"told": "given, told apart: distinguished",
    r"asked": "requested",
    r"asks? for": "requests, needs",
    r"hears?": "receives",
    r"learnt": "trained, learned",
    r"rivals?": "baseline",
    r"held against": "compared with",
    r"beside": "next to, compared with",
    r"besides": "in addition to",
    r"shares? of": "fraction of",
    r"odd (objects?|things?|ones)": "out-of-distribution objects",
    r"likes of": "similar",
    r"had better": "must",
}
"""Patterns of whole words, each with what to write instead."""
WORDS = re.compile(rf"\b({'|'.join(PLAINER)})\b", re.IGNORECASE)


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and complaints of one file."""
    text = path.read_text(encoding="utf-8")
    pieces = python_text(text) if path.suffix == ".py" else enumerate(text.splitlines(), start=1)
    if path.suffix == ".py":
        for line, docstring in docstrings(text):
            if found := FRAGMENT.match(docstring.lstrip()):
                yield line, f"a docstring starts with '{found[0]}': start with a verb or a noun"
    for start, piece in pieces:
        for found in WORDS.finditer(re.sub(r"`[^`\n]*`|^ *\w+:", "", piece, flags=re.M)):
            line = start + piece.count("\n", 0, found.start())
            pattern = next(p for p in PLAINER if re.fullmatch(p, found[0], re.IGNORECASE))
            yield line, f"'{found[0]}': write {PLAINER[pattern]}"


def python_text(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and strings of Python code, except keys, with their first lines."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_key = token.type == tokenize.STRING and not re.search(r"\s", token.string)
        if token.type in kinds and not is_key:
            yield token.start[0], token.string


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield all strings that stand alone: docstrings of modules, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if alone and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def files(names: list[str]) -> Iterator[Path]:
    """Yield the files to check below the given paths, or of the whole project."""
    kinds = {".py", ".md", ".rst", ".yaml"}
    for name in names or [*CODE, *PAGES]:
        path = Path(name) if names else ROOT / name
        if path.is_file():
            yield path
        for below in sorted(path.rglob("*")) if path.is_dir() else ():
            if below.suffix in kinds and not {"_build", "reference"} & set(below.parts):
                yield below


def main() -> None:
    """Print all findings; the exit status is 1 if there are any."""
    count = 0
    for path in files(sys.argv[1:]):
        for line, complaint in sorted(findings(path)):
            print(
                f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}: ", end=""
            )
            print(complaint)
            count += 1
    sys.exit(f"{count} findings; CONTRIBUTING.md has the language rules" if count else 0)


if __name__ == "__main__":
    main()
