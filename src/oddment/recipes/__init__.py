"""Published experiments, one short file each: what was claimed, and what is measured when the experiment is repeated.

>>> from oddment.recipes import recipe_names
>>> recipe_names()
['contaminated-ones', 'deepweeds', 'held-out-digit', 'latent-plane', 'three-autoencoders']
"""

from oddment.recipes._base import Call, Claim, Option, Recipe, Run, get_recipe, recipe_names, register
from oddment.recipes._report import Outcome
from oddment.recipes._runner import run_recipe

__all__ = [
    "Call",
    "Claim",
    "Option",
    "Outcome",
    "Recipe",
    "Run",
    "get_recipe",
    "recipe_names",
    "register",
    "run_recipe",
]
