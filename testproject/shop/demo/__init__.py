"""The demo: two datacenters, one DynamoDB table, and a story in which nobody is logged out.

``browser`` is the user, ``datacenter`` one site and its servers, ``stage`` all servers together,
``story`` what happens to them, ``timeline`` what of it is told.
"""
