"""Which score and which pooling were asked for, and what is wrong with how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from oddment.errors import ParameterError
from oddment.scoring.residuals import RESIDUALS

__all__ = ["BEST", "MODEL", "Pool", "parse_pool", "parse_scores"]

MODEL = "model"
"""The score, or the pooling, that is the model's own."""

BEST = "best"
"""Whichever score does best on synthetic defects; fitting puts its name in place of this."""


@dataclass(frozen=True, slots=True)
class Pool:
    """How an anomaly map becomes a score.

    Args:
        kind: the mean over the largest values ("top"), the "max", or a "quantile".
        value: the share of the real pixels that counts as largest, 1 for the plain mean; or the quantile.
    """

    kind: Literal["top", "max", "quantile"]
    value: float = 1.0


def parse_scores(text: str) -> tuple[str, ...]:
    """Return the names of the scores in a text such as "model", "ssim" or "mse,ssim".

    Args:
        text: as it was asked for; "best" counts as "model" until the best is known.

    Raises:
        ParameterError: if one does not exist, or comes twice.
    """
    if text == BEST:
        return (MODEL,)
    names = tuple(part.strip() for part in text.split(","))
    known = (MODEL, *RESIDUALS)
    if unknown := [name for name in names if name not in known]:
        msg = (
            f"score must be one of {', '.join((BEST, *known))}, or several with commas between them, {BEST} not among "
            f"them; got {unknown[0]!r}."
        )
        raise ParameterError(msg)
    if len(set(names)) < len(names):
        msg = f"score names each part once; got {text!r}."
        raise ParameterError(msg)
    return names


def parse_pool(text: str) -> Pool | None:
    """Return the pooling that a text asks for: "mean", "max", "top=0.05" or "quantile=0.99"; None for "model".

    Raises:
        ParameterError: if it asks for anything else.
    """
    kind, equals, number = text.partition("=")
    if text == MODEL:
        return None
    if text in {"mean", "max"}:
        return Pool("top" if text == "mean" else "max")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if equals and kind == "top" and 0 < value <= 1:
        return Pool("top", value)
    if equals and kind == "quantile" and 0 < value < 1:
        return Pool("quantile", value)
    msg = f"pool must be one of model, mean, max, top=SHARE in (0, 1] or quantile=Q in (0, 1); got {text!r}."
    raise ParameterError(msg)
