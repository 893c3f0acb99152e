"""A soak: two sites of the shop under load while everything below them fails, again and again.

    python -m tests.soak --seconds 120 --seed 1 --report /tmp/soak

===============  ================================================================================
``settings``     the shop as the web processes of the soak run it, with ``urls`` of its own
``crowd``        makes thousands of sessions, in a process of its own
``proxy``        stands in front of a server and refuses, swallows, delays or cuts connections
``sites``        all servers: two sites, each with a memcached, and two regions of DynamoDB
``faults``       what each fault does; ``plan``: when, which a seed decides
``outages``      what was broken when, and so what a guarantee lets pass
``ledger``       what each session was told, and whether it is so
``load``         the users; ``traffic``: to which site they go
``watch``        memory and threads of the workers, and what their logs say
``report``       the sum of it as JSON; ``timeline`` as a picture
===============  ================================================================================
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# As pytest has it, for ``python -m tests.soak``.
for _folder in (ROOT, ROOT / "testproject"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
