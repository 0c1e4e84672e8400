"""Where the app and the sample data lie, in a checkout and in an installed wheel alike."""

from pathlib import Path

from gfviz.errors import GfvizError

_PACKAGE = Path(__file__).resolve().parent


def _beside_or_inside(name: str, witness: str) -> Path:
    # A wheel carries these folders under the package; a checkout keeps them beside it.
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if (candidate / witness).exists():
            return candidate
    raise GfvizError(f"the folder '{name}' is missing from this installation of gfviz: install it again")


def sample_data_dir() -> Path:
    """Folder of the shipped texts, tasks and models. Raises `GfvizError` where the installation lacks it."""
    return _beside_or_inside("sample_data", "README.md")


def app_dir() -> Path:
    """Folder of the Streamlit app (`main.py` is its entry). Raises `GfvizError` where the installation lacks it."""
    return _beside_or_inside("app", "main.py")
