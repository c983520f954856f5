"""The one definition of an anomaly score, as a graph."""

from oddment.scoring.choices import BEST, MODEL, parse_pool, parse_scores
from oddment.scoring.graph import OUTPUTS, PARTS, ScoringGraph, export

__all__ = ["BEST", "MODEL", "OUTPUTS", "PARTS", "ScoringGraph", "export", "parse_pool", "parse_scores"]
