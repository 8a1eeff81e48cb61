"""Content Credentials: a signed statement inside a file of what made it, after the C2PA standard.

``identity`` reads and makes certificates and keys, ``signing`` signs a finished file, ``reading``
tells what a file claims, whoever made it. All of it by c2pa-python, the extra ``provenance``;
the network is reached for a time stamp alone, where one is asked for.
"""
