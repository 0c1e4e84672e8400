"""Files of every format as this version writes them, kept so that later versions prove that they still read them."""
