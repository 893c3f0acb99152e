"""A world in memory for the model-based test: two sites, two regions, one clock.

``memcached`` and ``dynamodb`` are the tiers, ``process`` a site and its processes, ``world`` all of
it and the faults. ``promises`` says what was answered and what has to be seen, ``ledger`` where it
is, ``actions`` what requests do; ``machine`` has the rules that hypothesis plays.
"""
