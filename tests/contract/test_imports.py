"""The walls of the house: which module may import which, and what a command loads."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import oddment

SOURCE = Path(oddment.__file__).parent
MODULES = ["oddment", *sorted(info.name for info in pkgutil.walk_packages([str(SOURCE)], "oddment."))]
MODULES.remove("oddment.__main__")

# The finding half: installs without extras, and never loads the learning half.
FINDING = (
    "oddment",
    "oddment.__main__",
    "oddment.artifact",
    "oddment.calibration",
    "oddment.card",
    "oddment.cli",
    "oddment.errors",
    "oddment.examples",
    "oddment.forked",
    "oddment.drift",
    "oddment.graphcheck",
    "oddment.images",
    "oddment.monitoring",
    "oddment.allocator",
    "oddment.processors",
    "oddment.progress",
    "oddment.recalibration",
    "oddment.regions",
    "oddment.report",
    "oddment.results",
    "oddment.reviewing",
    "oddment.runtime",
    "oddment.scorepath",
    "oddment.scorer",
    "oddment.searching",
    "oddment.selection",
    "oddment.streams",
    "oddment.tables",
    "oddment.whole",
    "oddment.data.sample",
    "oddment.data.idx",
)
OWN_LEARNING = (
    "oddment.auditing",
    "oddment.baselines",
    "oddment.comparison",
    "oddment.detector",
    "oddment.evaluation",
    "oddment.fitting",
    "oddment.metrics",
    "oddment.models",
    "oddment.pyod",
    "oddment.recipes",
    "oddment.scoring",
    "oddment.training",
)
LEARNING = (*OWN_LEARNING, "joblib", "onnx", "pandas", "pyarrow", "scipy", "sklearn", "torch")
# Neither half: nothing of the finding half may load them with itself, a command may from inside a function.
OPTIONAL = ("oddment.data", "oddment.natural", "oddment.notebook", "oddment.plot")
# These commands train or measure: they may reach the learning half from inside their functions.
TRAINING_COMMANDS = {f"oddment.cli.{name}" for name in ("audit", "compare", "demo", "evaluate", "fit", "recipe")}


def path_of(module: str) -> Path:
    """The source file of a module."""
    base = SOURCE.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def is_under(name: str, roots: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the roots, or inside one that is not the package itself."""
    return any(name == root or (root != "oddment" and name.startswith(f"{root}.")) for root in roots)


def imports(module: str, *, inside_functions: bool) -> set[str]:
    """What a module imports when it is loaded, or everything that it ever imports; type checking left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for other in child.orelse:
                    visit(other)
            elif isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{module}: imports are absolute"
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
                continue
            else:
                visit(child)

    visit(ast.parse(path_of(module).read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("module", [name for name in [*MODULES, "oddment.__main__"] if is_under(name, FINDING)])
def test_the_finding_half_never_imports_the_learning_half(module: str) -> None:
    """No module of the finding half imports torch, scikit-learn, SciPy or the learning half when it is loaded."""
    wrong = {name for name in imports(module, inside_functions=False) if is_under(name, LEARNING)}
    assert not wrong
    if module not in TRAINING_COMMANDS:
        later = {name for name in imports(module, inside_functions=True) if is_under(name, LEARNING)}
        # Parquet is an extra that is asked for by name.
        assert not {name for name in later if not name.startswith("pyarrow")}


def test_every_module_is_on_one_side() -> None:
    """A new module is put on a side: it is listed here, or it is part of the learning half."""
    unplaced = [name for name in MODULES if not is_under(name, (*FINDING, *OWN_LEARNING, *OPTIONAL))]
    assert not unplaced


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (("oddment.errors", "oddment.results", "oddment.progress"), ("oddment",)),
        (
            ("oddment.images",),
            ("oddment.artifact", "oddment.runtime", "oddment.scorer", "oddment.searching", "oddment.cli"),
        ),
        (("oddment.calibration", "oddment.runtime", "oddment.drift"), ("oddment.selection", "oddment.monitoring")),
        (
            ("oddment.calibration", "oddment.runtime", "oddment.selection"),
            ("oddment.scorer", "oddment.searching", "oddment.cli"),
        ),
        (("oddment.examples",), ("oddment.artifact", "oddment.scorer", "oddment.report", "oddment.searching")),
        (("oddment.report",), ("oddment.scorer", "oddment.searching", "oddment.cli", "oddment.artifact")),
        (("oddment.scorer",), ("oddment.searching", "oddment.monitoring", "oddment.report", "oddment.cli")),
        (("oddment.models",), ("oddment.training", "oddment.scoring", "oddment.fitting", "oddment.scorer")),
        (("oddment.training", "oddment.scoring"), ("oddment.fitting", "oddment.detector", "oddment.cli")),
        (
            ("oddment.fitting", "oddment.detector", "oddment.searching", "oddment.monitoring", "oddment.recalibration"),
            ("oddment.cli",),
        ),
    ],
)
def test_imports_point_one_way(low: tuple[str, ...], high: tuple[str, ...]) -> None:
    """What lies below never imports what is built on it, not even inside a function."""
    for module in MODULES:
        if is_under(module, low):
            names = {name for name in imports(module, inside_functions=True) if name.startswith("oddment.")}
            reached = {name for name in names if is_under(name, high)}
            if high == ("oddment",):
                reached = {name for name in names if not is_under(name, low)}
            assert not reached, module


def loaded_by(code: str) -> set[str]:
    """The top-level modules, and those of Oddment, that a fresh process has loaded after `code`."""
    script = f"import sys, json\n{code}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


RUN = """
sys.argv = {arguments!r}
from oddment.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
HEAVY = {"torch", "sklearn", "scipy", "onnxruntime", "onnx", "numpy", "PIL", "pyarrow", "jinja2", "matplotlib"}


def test_import_oddment_loads_nothing_heavy() -> None:
    """`import oddment` loads its own file alone; names come on first use."""
    loaded = loaded_by("import oddment; dir(oddment)")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("oddment")} == {"oddment"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["fit", "--help"], ["find", "--help"], ["monitor", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Help comes without waiting for NumPy, ONNX Runtime or torch."""
    code = RUN.format(arguments=["oddment", *arguments])
    assert not loaded_by(code) & HEAVY


def test_loading_and_finding_need_no_learning_half(model_file: Path, new_folder: Path, tmp_path: Path) -> None:
    """A whole search, report included, loads neither torch nor scikit-learn nor SciPy."""
    arguments = ["oddment", "find", str(new_folder), "-m", str(model_file), "-o", str(tmp_path), "-q"]
    code = RUN.format(arguments=arguments)
    assert not loaded_by(code) & {"torch", "sklearn", "scipy", "onnx", "pyarrow", "matplotlib", "pandas", "joblib"}
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("module", MODULES)
def test_all_is_explicit_sorted_and_true(module: str) -> None:
    """Every module says in a literal, sorted `__all__` what it offers, and has it."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    if not [node for node in tree.body if not isinstance(node, ast.Expr)]:
        return  # a docstring alone
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    assert len(lists) == 1
    names = ast.literal_eval(lists[0])
    # ruff's order: CONSTANTS, Classes, functions.
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert len(set(names)) == len(names)
    loaded = importlib.import_module(module)
    missing = [name for name in names if not hasattr(loaded, name)]
    assert not missing


def test_no_drawer_for_everything() -> None:
    """No module is called utils, helpers, common or misc."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert not [name for name in MODULES if drawers & {part.strip("_") for part in name.split(".")}]


FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_can_run_what_a_file_says(module: str) -> None:
    """No pickle, no torch.load, no joblib, no eval or exec, no shell; the library neither prints nor exits."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    assert not {name.split(".")[0] for name in imports(module, inside_functions=True)} & FORBIDDEN_IMPORTS
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            pytest.fail(f"{module}:{node.lineno}: assert")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        bad = name in {"eval", "exec", "compile", "__import__", "print", "sys.exit", "torch.load", "os.system"}
        assert not bad, f"{module}:{node.lineno}: {name}"
        if name in {"np.load", "numpy.load"}:
            allowed = {item.arg: ast.unparse(item.value) for item in node.keywords}.get("allow_pickle", "False")
            assert allowed == "False", f"{module}:{node.lineno}: allow_pickle"
