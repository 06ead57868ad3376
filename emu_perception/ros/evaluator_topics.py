"""Topics of the evaluator and the player, all relative."""

ANSWERED = "answered"
"""The evaluator's: the header of each image whose maps have all arrived."""
TRUTH_TOPICS = {"labels": "ground_truth/labels", "depth": "ground_truth/depth"}
"""Kind of ground truth -> its topic: Image, mono8 class ids; 32FC1 metres or 16UC1."""
