"""The runs that a fusion is judged by: the same pivot, trained as long, with the teachers taken away or spoilt."""

from __future__ import annotations

from typing import Any, NamedTuple

from gfviz.errors import GfvizError
from gfviz.runs import RunDirectory
from gfvizui import places

# What must agree for two runs to be arms of one experiment.
SAME_TRAINING = ("steps", "epochs", "batch_size", "accumulation", "learning_rate", "scheduler")


class Control(NamedTuple):
    """Another arm of the run's experiment, and what it is called beside it."""

    title: str
    run: RunDirectory


def arm(config: dict[str, Any]) -> str:
    """What a configuration's teachers are: "fusion", "no teacher", or the control that replaces their signal.

    >>> arm({"teachers": [{"control": "shuffled"}]}), arm({"loss": {"lambda": 0}}), arm({"teachers": [{}]})
    ('shuffled teacher', 'no teacher', 'fusion')
    """
    teachers = config.get("teachers")
    if not isinstance(teachers, list) or not teachers or _section(config, "loss").get("lambda") == 0:
        return "no teacher"
    kinds = {str(teacher.get("control", "none")) for teacher in teachers if isinstance(teacher, dict)} - {"none"}
    return f"{min(kinds)} teacher" if kinds else "fusion"


def _section(config: dict[str, Any], key: str) -> dict[str, Any]:
    # A configuration on disk may be anything: a run is shown even where nothing could run it.
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def controls_of(run: RunDirectory) -> list[Control]:
    """The newest run of every other arm with the same pivot and the same training; none for a control itself."""
    config = _config(run)
    if run.record().kind != "fusion" or config is None or arm(config) != "fusion":
        return []
    found: dict[str, Control] = {}
    for other in places.find_runs():
        theirs = None if other.id == run.id else _config(other)
        if theirs is None or not _same_experiment(config, theirs):
            continue
        title = arm(theirs)
        if title != "fusion":
            found.setdefault(title, Control(title, other))
    return list(found.values())


def _config(run: RunDirectory) -> dict[str, Any] | None:
    try:
        return run.config
    except GfvizError:
        return None


def _same_experiment(one: dict[str, Any], two: dict[str, Any]) -> bool:
    def facts(config: dict[str, Any]) -> tuple:
        training = _section(config, "training")
        told = [_section(config, "pivot").get("model"), _section(config, "data").get("train"), config.get("seed")]
        return (*map(str, told), *(str(training.get(key)) for key in SAME_TRAINING))

    return facts(one) == facts(two)
