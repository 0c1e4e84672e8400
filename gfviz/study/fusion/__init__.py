"""The fusion study: losses beside their controls, over task families, label noise and teachers' confidence."""

from gfviz.study.fusion.analysis import summary, verdicts
from gfviz.study.fusion.pages import write_report
from gfviz.study.fusion.plan import METHODS, REGIMES, SIZES, plan_rows
from gfviz.study.fusion.results import keep_results, shipped_fusion_results
from gfviz.study.fusion.runner import COLUMNS, FusionStudy, run_fusion_study

__all__ = [
    "COLUMNS",
    "METHODS",
    "REGIMES",
    "SIZES",
    "FusionStudy",
    "keep_results",
    "plan_rows",
    "run_fusion_study",
    "shipped_fusion_results",
    "summary",
    "verdicts",
    "write_report",
]
