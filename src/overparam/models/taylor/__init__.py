"""First-order models of a network around its initialization."""
