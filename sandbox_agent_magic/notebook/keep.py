"""Which steps become cells: static analysis of what a piece of code binds and reads.

A failed step is left out of the notebook unless a kept step needs what it left behind; so the notebook runs from top
to bottom.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from ..types import Step

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def bound_names(code: str) -> set[str]:
    """Names that `code` binds at its top level: assignments, imports, definitions."""
    return set().union(*(_bound_by(statement) for statement in _statements(code)), set())


def free_names(code: str) -> set[str]:
    """Names that `code` reads before it has bound them itself."""
    free: set[str] = set()
    bound: set[str] = set()
    for statement in _statements(code):
        free |= _read_by(statement) - bound
        bound |= _bound_by(statement)
    return free


def needs(later: Step, earlier: Step) -> bool:
    """Whether `later` uses something that `earlier` left behind: a name, or a file named in its code."""
    if bound_names(earlier.code) & free_names(later.code):
        return True
    return any(file.name in later.code for file in earlier.result.new_files)


def needed_failures(step: Step, failed: list[Step]) -> list[Step]:
    """Those of the `failed` steps that `step` cannot run without, in order, with what they need in turn."""
    wanted: list[Step] = []
    frontier = [step]
    while frontier:
        current = frontier.pop()
        for earlier in failed:
            if earlier.index < current.index and earlier not in wanted and needs(current, earlier):
                wanted.append(earlier)
                frontier.append(earlier)
    return sorted(wanted, key=lambda found: found.index)


def _statements(code: str) -> list[ast.stmt]:
    """Top-level statements; IPython's own lines are left out, broken code has none."""
    lines = ("" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse("\n".join(lines)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _bound_by(statement: ast.stmt) -> set[str]:
    names: set[str] = set()
    for node in _walk_scope(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of this scope, nested functions' and classes' insides left out."""
    yield node
    if isinstance(node, (*_SCOPES, ast.ClassDef)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk_scope(child)


def _read_by(node: ast.AST) -> set[str]:
    """Names read anywhere in `node`, except the local names of its functions and comprehensions."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    names: set[str] = set().union(*(_read_by(child) for child in ast.iter_child_nodes(node)), set())
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        names.add(node.target.id)
    if isinstance(node, _SCOPES):
        local = {arg.arg for arg in ast.walk(node) if isinstance(arg, ast.arg)}
        stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        names -= local | stored
    return names
