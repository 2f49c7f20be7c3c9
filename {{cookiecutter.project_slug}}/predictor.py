"""Predicts from Python: `from predictor import load`, then `load("logs/version_0")(FILE)`."""

from engine.predictor import Predictor, load

__all__ = ["Predictor", "load"]
