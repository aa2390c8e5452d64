"""Assembling the result tables from the parts that the rules wrote; numbers come from isaerft.stats alone."""
