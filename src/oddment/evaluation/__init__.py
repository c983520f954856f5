"""A model against labelled images: how often its verdict is right, with an interval where there is one.

`evaluate` scores and measures; `write_evaluation` leaves JSON, CSV, Markdown, HTML and figures in a folder.
"""

from oddment.evaluation.records import ClassFigures, Evaluation, Example, Judged
from oddment.evaluation.report import write_evaluation
from oddment.evaluation.run import evaluate, judge

__all__ = ["ClassFigures", "Evaluation", "Example", "Judged", "evaluate", "judge", "write_evaluation"]
