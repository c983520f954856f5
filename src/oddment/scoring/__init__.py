"""The one definition of an anomaly score, as a graph."""

from oddment.scoring.graph import OUTPUTS, ScoringGraph, export

__all__ = ["OUTPUTS", "ScoringGraph", "export"]
