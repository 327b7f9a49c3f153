"""Layer 1: episodes in memory maps, windows of them, normalizers, importers."""
