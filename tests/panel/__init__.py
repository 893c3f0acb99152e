"""The health panel in a real browser, before web processes of two sites on real servers."""
