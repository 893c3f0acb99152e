"""A small point of sale: the site that the demo fails over and that the tests run in."""
