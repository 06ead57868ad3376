"""An evaluator that has seen frames."""

from emu_perception.evaluation import Evaluator

RANGE = (0.5, 80.0)


def fed(label_set, frames, **options):
    evaluator = Evaluator(label_set, RANGE, **options)
    for prediction, labels, depth in frames:
        evaluator.update(prediction, labels, depth)
    return evaluator
