"""The error study: how far each method's distance is from the truth, per family of graphs, size and budget."""

from gfviz.study.validate.families import SYNTHETIC, Family, Pair
from gfviz.study.validate.pages import write_report
from gfviz.study.validate.plan import SIZES
from gfviz.study.validate.results import shipped_results, summary
from gfviz.study.validate.runner import COLUMNS, ValidationResult, run_validation
from gfviz.study.validate.targets import rank_correlations, targets_table

__all__ = [
    "COLUMNS",
    "SIZES",
    "SYNTHETIC",
    "Family",
    "Pair",
    "ValidationResult",
    "rank_correlations",
    "run_validation",
    "shipped_results",
    "summary",
    "targets_table",
    "write_report",
]
