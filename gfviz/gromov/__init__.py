"""Gromov–Wasserstein distances as certified intervals: lower ≤ GW ≤ upper, with the proof used."""

from gfviz.gromov.closed_form import sorted_gw
from gfviz.gromov.ladder import BUDGETS, Prediction, gromov_wasserstein, predict_cost, run_rung
from gfviz.gromov.result import GromovResult, RungRecord
from gfviz.gromov.summaries import apriori_interval, node_shares, objective

__all__ = [
    "BUDGETS",
    "GromovResult",
    "Prediction",
    "RungRecord",
    "apriori_interval",
    "gromov_wasserstein",
    "node_shares",
    "objective",
    "predict_cost",
    "run_rung",
    "sorted_gw",
]
