"""Speed and memory on this machine, compared with baselines and limits."""
