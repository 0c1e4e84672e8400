"""The fusion study as a page: what beat what, how far it went, and how it was done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.study.fusion.plan import METHODS, REGIMES
from gfviz.study.report import Report

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from gfviz.study.fusion.runner import FusionStudy

_SHOWN = {
    "method": "method",
    "mean": "exact match",
    "sft": "− SFT",
    "interval": "95% interval",
    "pivot": "− unfused pivot",
    "answers": "− teacher's answers",
    "one-hot": "− one-hot",
    "shuffled": "− shuffled",
    "without": "− without structure",
    "p_all": "p (all, Holm)",
    "closed": "of the way to KL",
    "verdict": "beats",
}


def write_report(study: FusionStudy, path: str | Path | None = None) -> Path:
    """Write the study as one HTML file (about 5 MB, opens offline) to `path`, by default report.html in its folder."""
    report = Report(
        "Does a structure loss carry anything of the teacher?",
        "Every loss beside plain fine-tuning, training on the teacher's answers, a teacher with the same tokenizer, "
        "and two controls that take the teacher out of the signal.",
    )
    if not study.evidence:
        report.text("This is the smoke size: it shows that everything runs, and is no evidence about any method.")
    _found(report, study)
    for stage, title in (("study", "The study"), ("confirm", "The confirmation on fresh seeds and another pivot")):
        part = study.verdicts[study.verdicts["stage"] == stage] if len(study.verdicts) else study.verdicts
        if len(part):
            _stage(report, part, title)
    _models(report, study)
    _method(report, study)
    return report.write(path if path is not None else study.out / "report.html")


def _found(report: Report, study: FusionStudy) -> None:
    report.section("What came out")
    lines = []
    for stage, name in (("study", "in the study"), ("confirm", "on the fresh seeds")):
        for kind in ("clean", "noisy"):
            found = study.verdicts
            part = found[(found["stage"] == stage) & (found["labels"] == kind) & found["ours"].astype(bool)]
            if not len(part):
                continue
            winners = part[part["beats_all"]]
            named = ", ".join(f"`{row.method}` in {row.regime}" for row in winners.itertuples())
            lines.append(
                f"With {kind} labels, {name}: {len(winners)} of {len(part)} cells of a structure loss beat SFT, both "
                f"controls and the same run without it after correction{': ' + named if named else ''}."
            )
        lines += _against_pivot(study, stage, name)
    report.points(lines)


def _against_pivot(study: FusionStudy, stage: str, name: str) -> list[str]:
    """Beating plain fine-tuning is no gain where fine-tuning itself loses: say where that is so."""
    found = study.verdicts
    part = found[(found["stage"] == stage) & (found["method"] == "sft")]
    lines = []
    for row in part[part["pivot"].notna()].itertuples():
        cells = found[(found["stage"] == stage) & (found["regime"] == row.regime) & found["ours"].astype(bool)]
        above = int((cells["pivot_low"] > 0).sum())
        lines.append(
            f"In {row.regime}, {name}, SFT ends {100 * row.pivot:+.1f} points from the unfused pivot; {above} of "
            f"{len(cells)} structure losses end above it (95% interval, not corrected)."
        )
    return lines


def _stage(report: Report, part: pd.DataFrame, title: str) -> None:
    report.section(title)
    for regime in dict.fromkeys(part["regime"]):
        rows = part[part["regime"] == regime].sort_values("mean", ascending=False, kind="stable")
        about = f"{regime}: {REGIMES[regime].about}"
        report.figure(_forest(rows), f"{about}. Difference of exact match to SFT, paired over seeds, 95% intervals.")
        report.table(_table(rows), f"{about}; points of exact match, mean over {int(rows['seeds'].max())} seeds.")


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows.copy()
    for name in ("mean", "sft", "sft_low", "sft_high", "pivot", "answers", "one-hot", "shuffled", "without"):
        found[name] = (100 * found[name]).round(1)
    found["interval"] = [
        "–" if low != low else f"[{low:.1f}, {high:.1f}]" for low, high in zip(found["sft_low"], found["sft_high"])
    ]
    found["closed"] = found["closed"].map(lambda share: "–" if share != share else f"{share:.0%}")
    found["verdict"] = [
        ", ".join(name for name in ("sft", "controls", "without", "all") if row[f"beats_{name}"]) or "–"
        for row in found.to_dict("records")
    ]
    return found[list(_SHOWN)].rename(columns=_SHOWN)


def _forest(rows: pd.DataFrame) -> go.Figure:
    import plotly.graph_objects as go

    ordered = rows[rows["sft"].notna()].iloc[::-1]
    reach = 100 * (ordered["sft_high"] - ordered["sft"]).fillna(0)
    figure = go.Figure(
        go.Scatter(
            x=(100 * ordered["sft"]).tolist(),
            y=ordered["method"].tolist(),
            error_x={"type": "data", "array": reach.tolist()},
            mode="markers",
            marker={"size": 9, "symbol": ["diamond" if ours else "circle" for ours in ordered["ours"]]},
            hovertemplate="%{y}: %{x:.1f} points<extra></extra>",
        )
    )
    figure.add_vline(x=0, line_dash="dot")
    figure.update_layout(
        height=120 + 26 * len(ordered), showlegend=False, xaxis_title="points above SFT", margin={"l": 150, "t": 20}
    )
    return figure


def _models(report: Report, study: FusionStudy) -> None:
    import pandas as pd

    report.section("The models")
    report.text(
        "Teacher and pivot have different tokenizers; the twin is a teacher of the same shape, data and steps with the "
        "pivot's own tokenizer, for KL. Hedged prompts begin with a word that tells how sure the answer is."
    )
    rows = [
        {"model": name, "parameters": found["parameters"], "vocabulary": found["vocabulary"]}
        | {f"{kind} exact match": found[kind]["exact_match"] for kind in ("plain", "hedged")}
        for name, found in study.models.items()
    ]
    report.table(pd.DataFrame(rows), "What the study trained, with held-out scores.")


def _young(size: dict[str, Any]) -> str:
    young = size["young"]
    if young is None:
        return ""
    return (
        f"; those of a young pivot (trained for {young['pivot']['steps']} steps in place of {size['pivot']['steps']}) "
        f"{young['unlabelled']}, at the rate {young['rate']:g} in place of {size['rate']:g}"
    )


def _choices(size: dict[str, Any]) -> str:
    if not size["again"]:
        return "The best cell of the first tier of each kind of labels is confirmed, where the size confirms any."
    return (
        "What is confirmed is chosen by rules that were written down first: the best cell of the first tier of each "
        "kind of labels; where that is not confirmed, the cell with the smallest p among those that beat all, after "
        "the list that was fixed at first and again after each tier of attempts that were listed later: "
        f"{'; '.join(', '.join(names) + ' in ' + ', '.join(regimes) for names, regimes in size['attempts'])}. The "
        "correction counts the attempts too."
    )


def _method(report: Report, study: FusionStudy) -> None:
    import pandas as pd

    from gfviz.study.fusion.runner import COLUMNS
    from gfviz.study.validate.runner import machine

    report.section("How it was done")
    size: dict[str, Any] = study.config["size"]
    report.points([f"`{name}`: {REGIMES[name].about}" for name in study.config["regimes"]])
    report.text(
        f"Size `{size['name']}`: {study.done} of {study.planned} listed runs were made (`plan.csv` was written before "
        f"the first). Families mixed within each run: {', '.join(size['families'])}. Each run starts from the same "
        f"unfused pivot and takes {size['steps']} steps of {size['batch']} examples; seeds draw the examples, their "
        "wrong labels and their order, the same for all methods. Regimes of few labels have "
        f"{size['few']} labelled and {size['unlabelled']} unlabelled prompts a family{_young(size)}.",
        "`answers` trains on the labels and, with the weight that the other methods give to the teacher, on the "
        "teacher's own greedy answers. `one-hot` replaces the teacher's signal by [1, 0, …] on the text's own token, "
        "`shuffled` by its signal of another example. Differences are paired over seeds; intervals are Student's at "
        "95%. A cell counts as beating all when the largest of its one-sided p-values (against SFT, both controls and "
        "the same run without the structure loss), Holm-adjusted over all cells of the stage, is below 0.05.",
        "Teacher and pivot are fixed within a stage, so that the intervals speak of other data and not of other "
        "models; the confirmation uses another pivot and seeds that nothing was chosen on.",
        _choices(size),
        "Machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()) + ".",
    )
    settings = pd.DataFrame([
        {"method": name, "token": METHODS[name].token, "structure": METHODS[name].structure, "β": METHODS[name].beta,
         "λ": METHODS[name].lam, "temperature": METHODS[name].temperature,
         "own answers renewed": f"every {METHODS[name].renew} steps" if METHODS[name].renew else "–",
         "teacher": "twin" if METHODS[name].twin else "teacher"}
        for name in study.config["methods"] if METHODS[name].kind == "distil" and METHODS[name].control == "none"
    ])  # fmt: skip
    report.table(settings, "What each loss is made of: (1 − λ)·SFT + λ·(token + β·structure).")
    columns = pd.DataFrame(COLUMNS.items(), columns=["column", "meaning"])
    report.table(columns, "Columns of `table.csv` and `table.parquet`, one row per run.")
