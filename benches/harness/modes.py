"""The modes that take turns: direct, the relay, the same relay again, Firebreak, with features.

A mode keeps its address for the whole bench; `fresh` starts its process anew on the same ports.
"""

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request

from processes import Failed, Process

READY_SECONDS = 30
NODE_PORTS = 4
# Bootstrap, virtual brokers, admin.
PORTS_OF_FIREBREAK = NODE_PORTS + 2


class Direct:
    """Clients talk to the broker itself."""

    process = None
    ca = None

    def __init__(self, bootstrap, name="direct"):
        self.bootstrap = bootstrap
        self.name = name

    def fresh(self):
        """Nothing to start anew."""

    def carried(self):
        return None

    def close(self):
        """Nothing to end."""


class Relay:
    """The bare relay: `relay` in ../src/bin."""

    ca = None

    def __init__(self, name, binary, listen, stats, log):
        self.name = name
        self.binary = binary
        self.bootstrap = listen
        self.stats = stats
        self.log = log
        self.upstream = None
        self.process = None

    def start(self, upstream):
        self.upstream = upstream
        self.fresh()

    def fresh(self):
        self.close()
        self.process = Process(
            [self.binary, "--listen", self.bootstrap, "--upstream", self.upstream,
             "--stats", self.stats],
            self.log,
        )
        await_answer(self, self.carried)

    def carried(self):
        """Bytes carried so far: from clients, to clients."""
        host, port = self.stats.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as asked:
            with asked.makefile() as lines:
                counts = json.loads(lines.readline())
        return {"up": counts["up"], "down": counts["down"]}

    def close(self):
        if self.process:
            self.process.close()
            self.process = None


class Firebreak:
    """The proxy: `settings` are lines of its configuration file; without, flags alone. `ca`: it
    speaks TLS, with a certificate of this authority."""

    def __init__(self, name, binary, ports, host, folder, settings=None, ca=None):
        self.name = name
        self.binary = binary
        self.bootstrap = f"{host}:{ports[0]}"
        self.node_ports = f"{ports[1]}-{ports[NODE_PORTS]}"
        self.admin = f"{host}:{ports[NODE_PORTS + 1]}"
        self.folder = folder
        self.settings = settings
        self.ca = ca
        self.upstream = None
        self.process = None

    def start(self, upstream):
        self.upstream = upstream
        self.fresh()

    def fresh(self):
        self.close()
        command = [self.binary, "--upstream", self.upstream, "--listen", self.bootstrap,
                   "--ports", self.node_ports, "--admin", self.admin]
        if self.settings:
            file = self.folder / f"{self.name}.toml"
            file.write_text(self.settings)
            command += ["--config", str(file)]
        self.process = Process(command, self.folder / f"{self.name}.log")
        await_answer(self, lambda: self.get("/readyz"))

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer:
            return answer.read().decode()

    def carried(self):
        """Bytes carried so far: from clients, to clients (`firebreak_bytes_total`)."""
        counts = self.counts("bytes", "direction")
        try:
            return {"up": counts["from_client"], "down": counts["to_client"]}
        except KeyError:
            raise Failed(f"{self.name} does not count its bytes") from None

    def offloaded(self):
        """Large values so far, by what was done with them."""
        return self.counts("offload_objects", "op")

    def counts(self, name, label):
        line = rf'^firebreak_{name}_total\{{{label}="([^"]*)"\}} (\d+)'
        found = re.findall(line, self.get("/metrics"), re.MULTILINE)
        return {key: int(count) for key, count in found}

    def close(self):
        if self.process:
            self.process.close()
            self.process = None


def await_answer(mode, question):
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            return question()
        except (OSError, urllib.error.URLError) as error:
            if not mode.process.alive():
                raise Failed(f"{mode.name} has ended{mode.process.last_words()}") from None
            if time.monotonic() > end:
                raise Failed(f"{mode.name} is not ready: {error}") from None
        time.sleep(0.05)


def certificate(folder, host):
    """An authority, and a certificate of it for `host`: (authority, certificate, key) as files."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    cert, key, wanted = folder / "tls.pem", folder / "tls.key", folder / "tls.csr"
    extensions = folder / "tls.ext"
    extensions.write_text(f"subjectAltName=IP:{host}\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch"]
    for command in (
        ["req", "-x509", *new, "-subj", "/CN=bench", "-keyout", ca_key, "-out", ca, "-days", "2"],
        ["req", *new, "-subj", "/CN=proxy", "-keyout", key, "-out", wanted],
        ["x509", "-req", "-in", wanted, "-CA", ca, "-CAkey", ca_key, "-set_serial", "7",
         "-days", "1", "-extfile", extensions, "-out", cert],
    ):
        done = subprocess.run(["openssl", *command], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"openssl {command[0]}: {done.stderr}")
    return ca, cert, key
