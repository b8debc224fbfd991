"""Which room may import which, and how large a file or function may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sklearn_diffult

PACKAGE = Path(sklearn_diffult.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A room imports itself and rooms of a lower floor. On floor 0, where modules with a leading
# underscore are too, helpers may use one another.
FLOORS = {
    "augmentations": 0,
    "codecs": 1,
    "datasets": 1,
    "diffusion": 1,
    "filters": 1,
    "metrics": 1,
    "networks": 1,
    "streams": 1,
    "weights": 1,
    "training_data": 2,
    "plotting": 2,
    "selection": 2,
    "classifier": 2,
    "evidence": 3,
    "plans": 3,
    "privacy": 2,
    "results": 3,
    "saving": 4,
    "stages": 4,
    "balancer": 5,
    "pipeline": 6,
    "__init__": 7,
}
FORBIDDEN = {
    "diffusion": {"sklearn", "imblearn", "pandas", "matplotlib"},
    "networks": {"sklearn", "imblearn", "pandas", "matplotlib"},
}
# Optional, so to be imported inside functions only; None stands for every room.
LAZY = {"matplotlib": {"plotting"}, "pandas": None}

MAX_FILE_LINES = 450
MAX_BODY_LINES = 60


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _floor(room: str) -> int:
    return 0 if room.startswith("_") and room != "__init__" else FLOORS[room]


def _imports(nodes: Iterator[ast.AST], path: Path) -> Iterator[str]:
    """Dotted names that the nodes import, relative ones resolved."""
    package = ("sklearn_diffult", *path.relative_to(PACKAGE).parent.parts)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split("."))
            yield from (".".join(filter(None, (*module, alias.name))) for alias in node.names)


def _rooms_imported(path: Path) -> set[str]:
    rooms = set()
    for name in _imports(ast.walk(ast.parse(path.read_text())), path):
        top, _, rest = name.partition(".")
        if top == "sklearn_diffult":
            room = rest.partition(".")[0]
            is_room = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
            # What is no room is a public name of the package itself.
            rooms.add(room if room and is_room else "__init__")
    return rooms


def _run_on_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that importing the module executes."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        yield node
        pending.extend(ast.iter_child_nodes(node))


def test_every_room_has_a_floor():
    for path in FILES:
        assert _floor(_room(path)) >= 0


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_point_down_only(path):
    room = _room(path)
    for other in _rooms_imported(path) - {room}:
        assert _floor(other) < _floor(room) or _floor(other) == 0, f"{room} imports {other}"


@pytest.mark.parametrize("path", [p for p in FILES if _room(p) in FORBIDDEN], ids=_name)
def test_the_rooms_below_know_torch_but_not_scikit_learn(path):
    tops = {name.split(".")[0] for name in _imports(ast.walk(ast.parse(path.read_text())), path)}
    assert not tops & FORBIDDEN[_room(path)]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_optional_libraries_are_imported_late(path):
    tree = ast.parse(path.read_text())
    on_import = {name.split(".")[0] for name in _imports(_run_on_import(tree), path)}
    at_all = {name.split(".")[0] for name in _imports(ast.walk(tree), path)}
    assert not on_import & LAZY.keys()
    for library in at_all & LAZY.keys():
        assert LAZY[library] is None or _room(path) in LAZY[library]


def test_the_package_imports_without_optional_libraries_and_changes_no_global_state():
    script = """
import random, sys, warnings
sys.modules["matplotlib"] = sys.modules["pandas"] = None
import imblearn.pipeline, joblib, numpy as np, torch, tqdm
def state():
    return (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(),
            torch.get_num_threads(), torch.get_default_dtype(), list(warnings.filters),
            torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision())
before = state()
import sklearn_diffult
for name in sklearn_diffult.__all__:
    getattr(sklearn_diffult, name)
assert state() == before
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_no_fit_imports_the_compiler_of_torch_which_takes_seconds(tmp_path):
    script = f"""
import sys, numpy as np
from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
rng = np.random.default_rng(0)
y = np.repeat([0, 1], [30, 12])
for X in (rng.normal(size=(42, 3)), rng.integers(256, size=(42, 8, 8), dtype=np.uint8)):
    balancer = DiffusionBalancer(n_steps=2, d2_max=9.0, d3_max=9.0, max_rounds=2, random_state=0)
    balancer.set_params(checkpoint={str(tmp_path)!r}).fit(X, y)
    balancer.save({str(tmp_path / "saved")!r})
    DiffusionBalancer.load({str(tmp_path / "saved")!r}).generate(2, label=1)
    WeightedTorchClassifier(n_steps=2, random_state=0).fit(X, y).predict(X)
print(sorted({{"sympy", "torch._dynamo"}} & sys.modules.keys()))
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_and_functions_stay_short_enough_to_read(path):
    text = path.read_text()
    assert len(text.splitlines()) < MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length < MAX_BODY_LINES, f"{node.name} is {length} lines long"
