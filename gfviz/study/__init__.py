"""What the studies run on: task families, the prose corpus, and the small models that ship with gfviz."""
