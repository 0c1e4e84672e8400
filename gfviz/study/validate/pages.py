"""The study as a page: what was found, in plain words, with the plots that show it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.study.report import Report
from gfviz.study.validate import plots
from gfviz.study.validate.families import SYNTHETIC
from gfviz.study.validate.targets import rank_correlations
from gfviz.study.validate.width import advice

if TYPE_CHECKING:
    import pandas as pd

    from gfviz.study.validate.runner import ValidationResult


def write_report(result: ValidationResult, path: str | Path | None = None) -> Path:
    """Write the study as one HTML file (about 5 MB, opens offline) to `path`, by default report.html in its folder."""
    report = Report(
        "How far off is a Gromov–Wasserstein distance?",
        "Every method on pairs of graphs whose distance is proven, or bracketed as tightly as the budget allowed.",
    )
    _targets(report, result.targets)
    _tightness(report, result.table)
    _growth(report, result.table)
    _order(report, result.table)
    _width(report, result.width)
    _method(report, result)
    return report.write(path if path is not None else result.out / "report.html")


def _targets(report: Report, targets: pd.DataFrame) -> None:
    report.section("What was to be reached, and what was")
    report.text(
        "All targets are for p = 2 and were measured on the pairs of this study. A target is stated for all families "
        "together and must not be read as holding for each: the second table has them apart."
    )
    report.table(
        _shown(targets[targets["family"] == "all"].drop(columns="family")), "Targets over all families.", **_LOOK
    )
    apart = targets[targets["family"] != "all"]
    wide = apart.pivot_table(index="target", columns="family", values="measured", aggfunc="first", sort=False)
    report.table(wide.reset_index(), "The same numbers, family by family.")


def _shown(targets: pd.DataFrame) -> pd.DataFrame:
    return targets.assign(met=targets["met"].map({True: "met", False: "missed"}).fillna("–"))


_LOOK: dict[str, Any] = {"marks": {"met": lambda met: {"met": "good", "missed": "bad"}.get(met, "quiet")}}


def _tightness(report: Report, table: pd.DataFrame) -> None:
    report.section("How tight each bound is, family by family")
    report.text(
        "1 is the distance itself. A lower bound lies to the left of it, an upper bound to the right; the nearer, the "
        "tighter. `sorted` is the closed form of InfiGFusion in its weighted, root-taken form: it is a lower bound, "
        "not the distance. Where the distance is not proven, the best upper bound of all methods stands in for it, so "
        "lower bounds then look looser than they are."
    )
    for size in plots.telling_sizes(table):
        proven = plots.proven_share(table, size)
        report.figure(
            plots.tightness(table, size),
            f"Median of each method's bound over the distance at n = {size} ({proven:.0%} of these pairs are proven). "
            "The vertical line is the distance; the axis is logarithmic.",
        )


def _growth(report: Report, table: pd.DataFrame) -> None:
    report.section("How error, gap and time grow with the number of nodes")
    report.figure(
        plots.error_by_size(table),
        "Median relative error of each method over the pairs of all families with positive semidefinite, equally "
        "large, uniformly weighted graphs. Choose a family above the plot.",
    )
    report.figure(
        plots.gap_by_size(table),
        "Mean gap (upper − lower) / upper that each budget leaves. Zero means that the distance is known.",
    )
    report.figure(
        plots.time_by_size(table), "Median processor time of a call, both axes logarithmic. POT runs from one start."
    )
    memory = table[table["peak_bytes"].notna()]
    if len(memory):
        shown = memory.pivot_table(index="method", columns="size", values="peak_bytes", aggfunc="max") / 2**20
        shown.columns = [f"n = {size}" for size in shown.columns]
        report.table(
            shown.reset_index(), "Largest memory of a call in MiB (Python and numpy; C++ inside POT is not seen)."
        )


def _order(report: Report, table: pd.DataFrame) -> None:
    correlations = rank_correlations(table)
    if correlations.empty:
        return
    report.section("Does a method order pairs as the distance does?")
    report.text(
        "A method can be far off and still tell near pairs from far ones. Spearman's correlation is 1 where it orders "
        "them exactly as the distance does. It needs at least eight pairs of one family and size."
    )
    size = int(correlations.groupby("size")["pairs"].sum().idxmax())
    report.figure(
        plots.order_scatter(table, size),
        f"Each point is a pair at n = {size}: its distance, and what the method says. Choose a family above the plot.",
    )
    at = correlations[correlations["size"] == size]
    wide = at.pivot_table(index="family", columns="method", values="spearman", sort=False)
    kept = [name for name in plots.ORDERED if name in wide.columns]
    report.table(wide[kept].reset_index(), f"Spearman's correlation with the distance at n = {size}.")


def _width(report: Report, width: pd.DataFrame) -> None:
    report.section("Choosing k, the number of kept logits")
    chosen = advice(width.to_dict("records"))
    report.text(
        "Rank graphs of the same texts at several k and numbers of positions T. With uniform weights the distance "
        "falls like 1/k by itself, so k times it is drawn: that settles once the dropped tail no longer matters.",
    )
    if chosen is not None:
        report.text(f"Here k = {chosen} is enough on every pair for k·GW within 5% of the largest k's value.")
    report.figure(plots.tail_by_k(width), "Mean probability that the k largest logits leave out.")
    report.figure(
        plots.distance_by_k(width), "k times the certified distance (bars: the interval) at the most positions."
    )
    report.figure(plots.distance_by_positions(width), "The same against the number of positions, at the largest k.")
    report.figure(
        plots.cost_by_k(width), "Seconds for graphs and certified distance, and nodes a token graph would have."
    )


def _method(report: Report, result: ValidationResult) -> None:
    from gfviz.study.validate.runner import COLUMNS, machine

    report.section("How it was done")
    table, config = result.table, result.config
    report.points(
        [
            f"`{name}`: {SYNTHETIC[name].about if name in SYNTHETIC else 'trained models (' + kind + ')'}"
            for name, kind in table[["family", "kind"]].drop_duplicates().itertuples(index=False, name=None)
        ]
    )
    command = f"gfviz validate --out DIR --size {config['size']} --seed {config['seed']}"
    command += "".join(f" --family {name}" for name in config["families"] or ())
    command += " --checkpoints FOLDER" if config["checkpoints"] else ""
    report.text(
        f"Run with `{command}`: {table.groupby(['family', 'size', 'p', 'pair']).ngroups} pairs, "
        f"gfviz {config['gfviz']}. Synthetic pairs follow from the seed; only the times differ from run to run. Times "
        "in the plots are processor times, which other work on the machine hardly changes; short calls count with the "
        "best of three.",
        "A distance counts as proven when enumeration, branch and bound or meeting bounds closed its interval in any "
        "method on that pair. Everything else is compared with the best upper bound that any method found, POT's too.",
        "Machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()) + ".",
    )
    import pandas as pd

    columns = pd.DataFrame(COLUMNS.items(), columns=["column", "meaning"])
    report.table(columns, "Columns of `table.csv` and `table.parquet`, one row per pair and method.")
