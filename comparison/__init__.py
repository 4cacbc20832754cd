"""The fair comparison: a plan of regimes, the runner of its stages, and the report."""
