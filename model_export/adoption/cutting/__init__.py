"""Where a graph is cut: before suppression, and where its rows are still raw."""
