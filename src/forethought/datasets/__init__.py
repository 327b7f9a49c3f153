"""Layer 7: named, seeded builders of data sets, found by the registry."""
