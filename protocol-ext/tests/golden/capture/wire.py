"""The few requests the capture itself sends, spelled out by hand.

Metadata v1 and AlterPartitionReassignments / ListPartitionReassignments v0: enough to see a
cluster come up and to move leaders behind a client's back.
"""

import socket
import struct

from relay import read_exact


class Connection:
    """One connection to one broker, one request at a time."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=20)

    def close(self):
        """Ends the connection."""
        self.socket.close()

    def raw(self, frame):
        """Sends a whole frame and returns the answer's, both without their length."""
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        head = read_exact(self.socket, 4)
        body = head and read_exact(self.socket, struct.unpack(">i", head)[0])
        if body is None:
            raise EOFError("connection closed by broker")
        return body

    def broker_count(self):
        """How many brokers this broker knows."""
        return struct.unpack_from(">i", self._metadata([]), 4)[0]

    def leaders(self, topic):
        """Partition -> leader."""
        reader = Reader(self._metadata([topic]), 4)
        for _ in range(reader.int32()):
            reader.int32(), reader.string(), reader.int32(), reader.string()
        reader.int32()
        leaders = {}
        for _ in range(reader.int32()):
            reader.int16(), reader.string(), reader.take(1)
            for _ in range(reader.int32()):
                reader.int16()
                partition, leader = reader.int32(), reader.int32()
                leaders[partition] = leader
                for _ in range(2):
                    reader.take(4 * reader.int32())
        return leaders

    def reassign(self, topic, target):
        """Makes `target[partition]` the only replica of each partition."""
        partitions = b"".join(
            struct.pack(">i", partition) + b"\x02" + struct.pack(">i", node) + b"\x00"
            for partition, node in target.items()
        )
        name = topic.encode()
        body = struct.pack(">i", 20000) + b"\x02" + bytes([len(name) + 1]) + name
        body += bytes([len(target) + 1]) + partitions + b"\x00\x00"
        self.raw(struct.pack(">hhih", 45, 0, 1, -1) + b"\x00" + body)

    def reassigning(self):
        """Whether any reassignment is under way."""
        body = struct.pack(">hhih", 46, 0, 1, -1) + b"\x00" + struct.pack(">i", 20000)
        answer = self.raw(body + b"\x00\x00")
        return answer[12] > 1

    def _metadata(self, topics):
        body = struct.pack(">i", len(topics))
        for topic in topics:
            body += struct.pack(">h", len(topic)) + topic.encode()
        return self.raw(struct.pack(">hhih", 3, 1, 1, -1) + body)


class Reader:
    """Reads the old, non-flexible encoding."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, count):
        """`count` bytes."""
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def int16(self):
        """A big-endian i16."""
        return struct.unpack(">h", self.take(2))[0]

    def int32(self):
        """A big-endian i32."""
        return struct.unpack(">i", self.take(4))[0]

    def string(self):
        """A nullable string."""
        length = self.int16()
        return None if length < 0 else self.take(length).decode()
