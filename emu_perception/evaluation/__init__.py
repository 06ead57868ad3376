"""How good a model is and what its uncertainties are worth: streaming, in constant memory."""

from emu_perception.evaluation.evaluator import Evaluation, Evaluator

__all__ = ["Evaluation", "Evaluator"]
