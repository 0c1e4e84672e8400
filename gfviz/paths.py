"""Where the app and the sample data lie, in a checkout and in a wheel alike, and what a model's name names."""

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


def names_a_path(where: str) -> bool:
    """Whether a model's name is a path that exists; False for a hub id.

    Raises `GfvizError` where it can only have been meant as a path.
    """
    try:
        if Path(where).exists():
            return True
    except OSError:  # longer than a path may be, say
        pass
    if where.startswith((".", "/", "~")) or where.count("/") > 1 or "\\" in where:
        raise GfvizError(f"{where}: no such folder")
    return False


def check_model_folder(where: str) -> None:
    """Raise `GfvizError` where `where` is neither a hub id nor a folder with a model in safetensors."""
    if not names_a_path(where):
        return
    folder = Path(where)
    if not folder.is_dir() or not (folder / "config.json").is_file():
        raise GfvizError(f"{where}: not a model folder (there is no config.json in it)")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        reason = "its weights are pickled, which can run code" if pickled else "it has no weights"
        raise GfvizError(f"{where}: {reason}: expected model.safetensors")
