"""Floor 1: the co-activation graph, kept as factors and never n×n unless asked; merging, files, exports."""

from gfviz.graph.coactivation import CoactivationGraph, EdgeList, TextRecord
from gfviz.graph.export import EXPORT_FORMATS, export_graph
from gfviz.graph.storage import load_graph

__all__ = ["EXPORT_FORMATS", "CoactivationGraph", "EdgeList", "TextRecord", "export_graph", "load_graph"]
