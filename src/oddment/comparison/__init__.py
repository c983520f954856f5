"""Several models on the same images, split and seeds: which is best, by how much, and whether that is more than chance.

`compare` fits and scores, keeping each result as it comes; `write_comparison` leaves CSV, Markdown, HTML and figures.
"""

from oddment.comparison.records import Comparison, Entry, Standing
from oddment.comparison.report import write_comparison
from oddment.comparison.run import compare

__all__ = ["Comparison", "Entry", "Standing", "compare", "write_comparison"]
