"""What the pages share: where things lie, what is cached, the canvas, small parts."""
