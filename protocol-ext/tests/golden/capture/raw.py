"""Frames no client of ours would send, but brokers answer."""

import struct

import wire


def capture(cluster):
    """Asks with versions that are too new: brokers answer ApiVersions in its oldest form."""
    cluster.name_client("raw", "-")
    relay = cluster.brokers[0].plain
    for version in (5, 99):
        head = struct.pack(">hhih", 18, version, 7, 6) + b"golden" + b"\x00"
        connection = wire.Connection((relay.host, relay.port))
        connection.raw(head + b"\x07golden\x0219\x00")
        connection.close()
