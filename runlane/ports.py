"""Ports of this machine's loopback: which are free, and who may have them."""

import socket

LOOPBACK = "127.0.0.1"
HIGHEST_PORT = 65_535


def is_free(port: int) -> bool:
    """Tell whether a server can listen on a port now."""
    with socket.socket() as probe:
        return _binds(probe, port)


def free_port(wanted: int = 0) -> int:
    """Return a port that a server can listen on: the one that is wanted, where it is free.

    Raises:
        OSError: there is none.
    """
    with socket.socket() as probe:
        if not _binds(probe, wanted):
            probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def port_of(address: str) -> int:
    """Return the port of `host:port`, or of a URL without a path."""
    return int(address.rpartition(":")[2])


def _binds(probe: socket.socket, port: int) -> bool:
    # As our servers bind: connections of their predecessors in TIME_WAIT don't count.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((LOOPBACK, port))
    except (OSError, OverflowError):
        return False
    return True
