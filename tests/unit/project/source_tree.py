"""The repository as its rules see it: committed files and parsed modules."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("ratchet", "gateway", "engines", "learner")


@cache
def files(*suffixes: str) -> list[Path]:
    """Committed and to-be-committed files, relative to the root; with `suffixes`, only those."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = sorted({Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})
    return [path for path in found if not suffixes or path.suffix in suffixes]


def modules(*packages: str) -> list[Path]:
    """Python files of `packages` (top-level folders)."""
    return [path for path in files(".py") if path.parts[0] in packages]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


@cache
def imports(path: Path) -> list[str]:
    """Dotted names a file imports, wherever in it."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


@cache
def imported_files(path: Path) -> frozenset[Path]:
    """The files of our packages that a file imports, wherever in it; a package counts as its `__init__.py`."""
    found: set[Path] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {place for alias in node.names if (place := _file_of(alias.name)) is not None}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name` imports the module of that name if there is one, else the package.
            places = [_file_of(f"{node.module}.{alias.name}") or _file_of(node.module) for alias in node.names]
            found |= {place for place in places if place is not None}
    return frozenset(found)


def _file_of(dotted: str) -> Path | None:
    base = Path(*dotted.split("."))
    places = (base.with_suffix(".py"), base / "__init__.py")
    return next((place for place in places if base.parts[0] in PACKAGES and (ROOT / place).is_file()), None)


def circles(imports_of: Mapping[Path, Iterable[Path]]) -> list[list[Path]]:
    """Groups of files that import each other, directly or by way of others (the strongly connected components; Tarjan 1972)."""
    order: dict[Path, int] = {}
    lowest: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[list[Path]] = []

    def visit(path: Path) -> None:
        order[path] = lowest[path] = len(order)
        stack.append(path)
        for other in imports_of.get(path, ()):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[path] = min(lowest[path], lowest[other])
        if lowest[path] == order[path]:
            members = stack[stack.index(path) :]
            del stack[stack.index(path) :]
            if len(members) > 1 or path in imports_of.get(path, ()):
                found.append(sorted(members))

    for path in imports_of:
        if path not in order:
            visit(path)
    return found


@cache
def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Each call in a file, with the dotted name of what is called as written."""
    return [(ast.unparse(node.func), node) for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function's name and its length in lines, decorators left out."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1
