"""Layer 8: one study for each figure and table of the thesis, and for what goes beyond it."""
