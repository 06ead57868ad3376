"""Training of networks for any set of the tasks semantic, depth, normals, edges."""
