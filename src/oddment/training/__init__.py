"""Fitting a model: collect, split, train, keep."""
