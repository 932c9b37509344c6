"""A loopback TCP relay that splits Kafka frames both ways and hands each to a store.

Client -> relay -> broker. A frame is passed on whole and unchanged; a response is given the API
key and version of the request that carried its correlation id. The broker advertises the relay's
port, so a client never leaves it.
"""

import socket
import struct
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """One frame without its length, and who sent it to whom."""

    client: str
    client_version: str
    broker_version: str
    api_key: int
    api_version: int
    direction: str
    correlation_id: int
    body: bytes


@dataclass(frozen=True)
class Peers:
    """Who is on the two ends while a connection is accepted."""

    client: str
    client_version: str
    broker_version: str


class Relay:
    """Listens on one address; connections are named after `peers` at the time of accept."""

    def __init__(self, host, store):
        self.host = host
        self.store = store
        self.upstream = None
        self.peers = None
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]

    def start(self, upstream):
        """Begins to accept; `upstream` is the (host, port) of the broker."""
        self.upstream = upstream
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Stops accepting; open connections end with their client."""
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self.upstream)
            except OSError:
                client.close()
                continue
            for end in (client, broker):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = {}
            for work in (self._requests, self._responses):
                args = (client, broker, self.peers, asked)
                threading.Thread(target=work, args=args, daemon=True).start()

    def _requests(self, client, broker, peers, asked):
        def note(body):
            key, version, correlation = struct.unpack_from(">hhi", body)
            asked[correlation] = (key, version)
            self._record(peers, key, version, "request", correlation, body)

        pump(client, broker, note)

    def _responses(self, client, broker, peers, asked):
        def note(body):
            (correlation,) = struct.unpack_from(">i", body)
            key, version = asked.pop(correlation)
            self._record(peers, key, version, "response", correlation, body)

        pump(broker, client, note)

    def _record(self, peers, key, version, direction, correlation, body):
        if peers is not None:
            who = (peers.client, peers.client_version, peers.broker_version)
            self.store.offer(Frame(*who, key, version, direction, correlation, body))


def pump(source, sink, note):
    """Copies frames until either end closes, then closes both."""
    try:
        while (head := read_exact(source, 4)) is not None:
            body = read_exact(source, struct.unpack(">i", head)[0])
            if body is None:
                break
            note(body)
            sink.sendall(head + body)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        end.close()


def read_exact(source, count):
    """`count` bytes, or None at the end of the stream."""
    parts = []
    while count > 0:
        part = source.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
