"""Train: a fusion's configuration as a form, what it will cost, the equivalent command, and the launch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st
import yaml
from gfvizui import address, forms, parts, places, preflight

from gfviz.errors import GfvizError
from gfviz.figures import duration
from gfviz.fusion.config import (
    DataConfig,
    EvaluationConfig,
    FusionConfig,
    GraphConfig,
    LossConfig,
    PivotConfig,
    TeacherConfig,
    TrainingConfig,
    parse_config,
)
from gfviz.fusion.trust import FLAG, asks_for_code, refuse_code
from gfviz.paths import sample_data_dir
from gfviz.runs import RunDirectory

FIRST_TRAINING = ["steps", "batch_size", "learning_rate"]
FIRST_LOSS = ["lam", "token", "structure", "beta", "k", "normalize"]
BLANK, EXAMPLE = "an empty form", "the shipped task models"


def example() -> dict[str, Any]:
    """A fusion that can be launched as it is: minutes on two cores."""
    home = sample_data_dir()
    return {
        "name": "example",
        "pivot": {"model": str(home / "models" / "task-pivot")},
        "teachers": [{"name": "specialist", "model": str(home / "models" / "task-specialist")}],
        "data": {
            "train": [str(home / "tasks" / "train.jsonl")],
            "evaluation": [str(home / "tasks" / "validation.jsonl")],
        },
        "loss": {"lambda": 0.3, "token": "uld", "structure": "anchored", "beta": 3.0},
        "training": {"steps": 300, "learning_rate": 0.002, "warmup": 10, "log_every": 5},
        "evaluation": {"max_new_tokens": 40, "limit": 120},
        "graph": {"every": 25},
    }


def of_run(run: RunDirectory) -> dict[str, Any]:
    """A run's configuration, with the examples that were given to it in memory as the files it kept of them."""
    config = dict(run.config)
    data = dict(config.get("data") or {})
    for key in ("train", "evaluation"):
        kept = run.path / "data" / f"{key}.jsonl"
        if not data.get(key) and kept.is_file():
            data[key] = [str(kept)]
    return {**config, "data": data}


def starting_point() -> tuple[dict[str, Any], str]:
    """The values that the form begins with: those of a run, the shipped example, or none; and a key."""
    runs = [run for run in places.find_runs() if run.record().kind == "fusion"]
    choices = [EXAMPLE, BLANK, *(run.id for run in runs)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        address.hold("start", EXAMPLE, address.among(choices))
        chosen = st.selectbox("Start from", choices, key="start")
        address.tell("start", chosen, EXAMPLE)
        anew = st.session_state.setdefault("train_anew", {})
        if st.button("Start over", icon=":material/undo:", key="start_over", help="Take back what you changed"):
            anew[chosen] = anew.get(chosen, 0) + 1
    run = next((run for run in runs if run.id == chosen), None)
    # Widgets of another key begin with their defaults.
    tag = f"{chosen} {anew[chosen]}" if chosen in anew else chosen
    return (of_run(run) if run else example() if chosen == EXAMPLE else {}), tag


def teachers(start: list[dict[str, Any]], tag: str) -> list[dict[str, Any]]:
    """One row of widgets for each teacher."""
    count = int(st.number_input("Teachers", 0, 8, len(start), key=f"{tag}.count", width=150, persist_state="session"))
    made = []
    for index in range(count):
        values = start[index] if index < len(start) else {"name": f"teacher-{index + 1}"}
        with st.container(border=True):
            fields = ["name", "model", "weight", "token", "structure", "control"]
            check = None if values.get("cache") else preflight.path_fault
            first = forms.section(TeacherConfig, f"{tag}.{index}", values, fields, 3, check)
            kept = forms.trimmed(TeacherConfig, {key: value for key, value in values.items() if key not in fields})
            made.append({**first, **kept})
    return made


def configuration() -> dict[str, Any]:
    """The mapping that the form describes, by the file's own keys, without what equals a default."""
    start, tag = starting_point()
    made: dict[str, Any] = {}
    st.markdown("**Models**")
    made |= forms.section(FusionConfig, tag, start, ["name", "seed", "mode"], 3)
    pivot = start.get("pivot", {})
    kept = forms.trimmed(PivotConfig, {key: value for key, value in pivot.items() if key != "model"})
    made["pivot"] = {**forms.section(PivotConfig, f"{tag}.pivot", pivot, ["model"], 1, preflight.path_fault), **kept}
    made["teachers"] = teachers(start.get("teachers", []), f"{tag}.teachers")
    st.markdown("**Data**")
    data, files = start.get("data", {}), ["train", "evaluation"]
    made["data"] = forms.section(DataConfig, f"{tag}.data", data, files, 2, preflight.path_fault)
    st.markdown("**Loss and training**")
    loss, training = start.get("loss", {}), start.get("training", {})
    made["loss"] = forms.section(LossConfig, f"{tag}.loss", loss, FIRST_LOSS, 3)
    made["training"] = forms.section(
        TrainingConfig, f"{tag}.training", training, FIRST_TRAINING, 3, length_check(tag, training)
    )
    with st.expander("Everything else"):
        for title, key, model, shown in (
            ("Loss", "loss", LossConfig, FIRST_LOSS),
            ("Training", "training", TrainingConfig, FIRST_TRAINING),
            ("Data", "data", DataConfig, files),
            ("Evaluation", "evaluation", EvaluationConfig, []),
            ("Teacher–student distance", "graph", GraphConfig, []),
        ):
            st.caption(title)
            rest = forms.simple_fields(model, tuple(shown))
            found = forms.section(model, f"{tag}.{key}", start.get(key, {}), rest, 2, preflight.path_fault)
            made[key] = {**made.get(key, {}), **found}
    made["runs"] = str(places.runs_root())
    # Sections that must be there stay: what is missing in them is then named by its own key.
    return {key: value for key, value in made.items() if value not in ({}, []) or key in ("pivot", "training")}


def length_check(tag: str, start: dict[str, Any]) -> Callable[[str, Any], str | None]:
    """Says beside the steps what is wrong with them and the epochs together, which are asked for further down."""
    epochs = st.session_state.get(f"{tag}.training.epochs", start.get("epochs"))

    def check(name: str, value: Any) -> str | None:
        if name != "steps" or (value is None) != (epochs is None):
            return None
        return "give this, or epochs under Everything else" + ("" if value is None else ", not both")

    return check


def megabytes(model: str) -> float | None:
    """Size of a local model's weights; None for a hub id."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6


def estimate(config: FusionConfig) -> None:
    """What the launch will read, hold and take, as far as that is known beforehand."""
    examples = preflight.examples_in(config.data.train)
    training = config.training
    batch = training.batch_size * training.accumulation
    steps = training.steps or max(1, round((training.epochs or 1) * examples / batch))
    sizes = [megabytes(config.pivot.model), *(megabytes(teacher.model) for teacher in config.teachers)]
    # Weights, gradients and two moments of AdamW in float32; teachers hold weights alone.
    held = [size or 0.0 for size in sizes[1:]] or [0.0]
    # A pairwise fusion holds one teacher at a time.
    together = max(held) if config.mode == "pairwise" else sum(held)
    memory = None if None in sizes else 4 * (sizes[0] or 0) + together
    speed = seconds_per_step(config)
    st.markdown("**What it will cost**")
    parts.cards(
        [
            ("Examples", f"{examples:,}", f"{steps * batch / examples:.1f} passes over them" if examples else None),
            ("Steps", f"{steps:,}", f"of {batch} examples"),
        ]
    )
    parts.cards(
        [
            (
                "Model memory",
                "–" if memory is None else f"{memory:,.0f} MB",
                "Weights and optimizer; activations on top. Of a hub model the detailed plan knows it.",
            ),
            (
                "Time",
                duration(None if speed is None else speed * steps),
                "From the pace of the newest run of this pivot"
                if speed
                else "No earlier run of this pivot to judge by",
            ),
        ]
    )


def detailed(config: FusionConfig, text: str) -> None:
    """The plan of `gfviz fuse --plan`: on a click, for it loads transformers and may run some real steps."""
    with st.container(horizontal=True, vertical_alignment="center"):
        wanted = st.button("Plan in detail", icon=":material/memory:", key="plan")
        measure = st.toggle("time some steps too", key="plan_measure", help="Loads the models and trains a few steps")
    kept = st.session_state.get("planned")
    if wanted:
        from gfviz.fusion.plan import plan

        with st.spinner("Sizing the models …"):
            kept = (text, plan(config, measure=measure))
        st.session_state["planned"] = kept
    if kept is None or kept[0] != text:
        st.caption("Memory by part and measured speed: the same as `gfviz fuse fusion.yaml --plan`.")
        return
    found = kept[1]
    rows = {name: held / 1e6 for name, held in found.memory.items() if held}
    table = {"part": [*rows, "most at one time"], "MB": [*rows.values(), found.peak_bytes / 1e6]}
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        key="plan_table",
        column_config={"MB": st.column_config.NumberColumn(format="%.1f", width="small")},
    )
    if found.seconds_per_step is not None:
        whole = None if found.steps is None else found.seconds_per_step * found.steps
        st.caption(
            f"{duration(found.seconds_per_step)} a step, {duration(whole)} in all, on {parts.plain(found.device)}."
        )
    for note in found.notes:
        st.caption(parts.plain(note))


def seconds_per_step(config: FusionConfig) -> float | None:
    """Pace of the newest finished run with the same pivot, batch size and number of teachers."""
    for run in places.find_runs():
        try:
            other, status = run.config, run.status()
        except GfvizError:
            continue
        alike = (
            other.get("pivot", {}).get("model") == config.pivot.model
            and len(other.get("teachers", [])) == len(config.teachers)
            and other.get("mode", "unified") == config.mode
            and other.get("training", {}).get("batch_size") == config.training.batch_size
        )
        if alike and status.state == "finished" and status.step > 0 and status.started and status.ended:
            return (status.ended - status.started) / max(status.step, 1)
    return None


def launch(config: FusionConfig) -> None:
    """Start the run and turn to its page."""
    with st.spinner("Starting the process …"):
        # The first launch imports transformers; nothing else on this page needs it.
        from gfviz.fusion.launch import launch_detached

        run = launch_detached(config)
    st.switch_page("views/runs.py", query_params={"run": run.id})


def draw() -> None:
    parts.heading("Train", "A fusion as a process of its own: it goes on when the app is closed.")
    left, right = st.columns([7, 4], gap="medium")
    with left:
        values = configuration()
    with right:
        st.markdown("**Configuration**")
        try:
            config = parse_config(values)
            # The form may have begun as the configuration of a run from elsewhere.
            refuse_code(values, "this form")
        except GfvizError as error:
            config = None
            st.error(parts.plain(str(error)), icon=":material/error:")
        wrong = preflight.faults(config) if config else []
        if wrong:
            st.error(parts.plain("; ".join(wrong)), icon=":material/error:")
        ready = config is not None and not wrong
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        st.code(text, language="yaml", height=360)
        st.caption("The same from a terminal, with the configuration above saved as fusion.yaml:")
        trusting = f" {FLAG}" if asks_for_code(values) else ""
        st.code(f"gfviz fuse fusion.yaml --detach{trusting}", language="bash")
        with st.container(horizontal=True):
            st.download_button("Save as fusion.yaml", text, "fusion.yaml", "text/yaml", on_click="ignore")
            started = st.button(
                "Launch", type="primary", icon=":material/play_arrow:", disabled=not ready, key="launch"
            )
        if config is not None and ready:
            estimate(config)
            detailed(config, text)
    if config is not None and ready and started:
        launch(config)


parts.page(draw)
