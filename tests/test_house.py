"""The house stands: each floor imports only floors below it, and importing the package is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "errors": -1, "paths": -1, "files": -1, "compiled": -1, "app_options": -1, "lazy": -1, "times": -1,
    "signals": 0, "kernels": 0,
    "graph": 1,
    "gromov": 2,
    "capture": 3, "runs": 3,
    "fusion": 4,
    "figures": 5,
    "study": 6, "bench": 6,
    "console": 7, "demo": 7, "cli": 7, "cli_runs": 7, "cli_measure": 7, "cli_fusion": 7, "__init__": 7,
}  # fmt: skip
# Drawing to a terminal is not a floor: capture shows a bar where it is asked to.
ANYWHERE = {"console"}


def _modules():
    for path in sorted((ROOT / "gfviz").rglob("*.py")):
        parts = path.relative_to(ROOT / "gfviz").with_suffix("").parts
        yield path, parts[0]


def _imports(path):
    """(module, whether it is needed at run time) of every import in the file, wherever it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in typing_only
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, node not in typing_only


def test_every_module_has_a_floor():
    assert {name for _, name in _modules()} <= set(FLOORS)


@pytest.mark.parametrize("path,name", [(p, n) for p, n in _modules() if n != "__init__"], ids=lambda x: str(x)[-40:])
def test_each_floor_imports_only_floors_below(path, name):
    for module, needed in _imports(path):
        parts = module.split(".")
        assert parts[0] not in ("app", "streamlit"), f"{path} imports {module}"
        if FLOORS[name] <= 2 and needed:
            assert parts[0] != "transformers", f"{path} imports transformers on floor {FLOORS[name]}"
        if parts[0] == "gfviz" and len(parts) > 1 and needed and parts[1] not in ANYWHERE:
            assert FLOORS[parts[1]] <= FLOORS[name], f"{path} (floor {FLOORS[name]}) imports {module}"


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("torch", "numpy", "transformers", "pandas", "plotly")
    code = f"import sys, gfviz; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_lower_floors_load_no_scipy():
    heavy = ("scipy", "transformers", "pandas")
    code = (
        "import sys\nimport gfviz.signals, gfviz.graph, gfviz.gromov, gfviz.runs\n"
        f"print([m for m in {heavy + ('ot', 'plotly')} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom gfviz.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'numpy', 'transformers', 'scipy', 'streamlit') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_exists():
    import gfviz

    for name in gfviz.__all__:
        assert getattr(gfviz, name) is not None
