"""Models on their way to a device: batch norms folded, standalone networks in three formats."""
