"""From an image to its maps: predictor, model files, engines, export."""
