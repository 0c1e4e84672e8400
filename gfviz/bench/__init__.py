"""Floor 6: benchmarks against peers and floors; every target a row that says whether it is met."""
