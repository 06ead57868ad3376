"""How a network is run. An engine maps normalised images to raw outputs on its device."""
