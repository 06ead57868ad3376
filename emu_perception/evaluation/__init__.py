"""How good a model is and what its uncertainties are worth: streaming, in constant memory."""

from emu_perception.evaluation.evaluator import Evaluator
from emu_perception.evaluation.fitting import DepthVarianceScaleFit, TemperatureFit
from emu_perception.evaluation.relative_gain import relative_gain
from emu_perception.evaluation.result import Evaluation

__all__ = ["DepthVarianceScaleFit", "Evaluation", "Evaluator", "TemperatureFit", "relative_gain"]
