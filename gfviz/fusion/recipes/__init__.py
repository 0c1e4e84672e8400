"""What the package ships for large fusions: recipes, Accelerate configurations, the shapes of their models."""

from pathlib import Path

from gfviz.errors import GfvizError

_HERE = Path(__file__).resolve().parent


def recipe_names() -> list[str]:
    """Names of the shipped recipes, for `gfviz fuse NAME`.

    >>> recipe_names()
    ['phi-4', 'phi-4-cached']
    """
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def accelerate_names() -> list[str]:
    """Names of the shipped Accelerate configurations, for `--accelerate-config NAME`.

    >>> accelerate_names()
    ['fsdp2', 'multi-gpu', 'zero2', 'zero3']
    """
    return sorted(path.stem for path in (_HERE / "accelerate").glob("*.yaml"))


def recipe_path(given: str | Path) -> Path:
    """The configuration file that is meant: the shipped recipe of that name, unless there is such a file."""
    if not Path(given).exists() and str(given) in recipe_names():
        return _HERE / f"{given}.yaml"
    return Path(given)


def accelerate_path(given: str | Path) -> Path:
    """The Accelerate configuration that is meant: a file, else the shipped one of that name. Raises `GfvizError`."""
    if Path(given).is_file():
        return Path(given)
    if str(given) in accelerate_names():
        return _HERE / "accelerate" / f"{given}.yaml"
    raise GfvizError(
        f"no Accelerate configuration at {given}: `accelerate config` writes one; shipped: "
        f"{', '.join(accelerate_names())}"
    )


def shape_path(model: str) -> Path | None:
    """The shipped `config.json` (sizes alone) of a hub id that a recipe names, None for any other."""
    path = _HERE / "shapes" / f"{model.replace('/', '--')}.json"
    return path if path.is_file() else None
