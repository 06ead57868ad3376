"""How fast the engines are on this machine, beside a peer on the same image."""
