"""Fetches the clients and drives them one after the other.

A driver is a program of its own. It prints `MOVE topic` when it wants the leaders of a topic
moved and waits for a line; everything else it prints is a report of one step.
"""

import shutil
import subprocess
import sys
import threading
import venv
from pathlib import Path

from cluster import PASSWORD, USER

OLD_CLIENT = "0.10.2.2"
DRIVER_SECONDS = 900
KCAT = "kcat"


class Tools:
    """Downloads and builds are kept under `home` and reused."""

    def __init__(self, sources: Path, home: Path):
        self.sources, self.home = sources, home
        home.mkdir(parents=True, exist_ok=True)

    def jars(self, version, pom="pom.xml"):
        """The jars of one Kafka version, from Maven."""
        target = self.home / f"jars-{version}"
        if not target.exists():
            part = self.home / f"part-{version}"
            run(
                "mvn",
                "-q",
                "-B",
                "-f",
                self.sources / pom,
                f"-Dkafka.version={version}",
                "dependency:copy-dependencies",
                f"-DoutputDirectory={part}",
                "-DincludeScope=runtime",
            )
            part.rename(target)
        return target

    def java(self, cluster, name, version, prefix, programs):
        """The Java client of that version."""
        jars = self.jars(version)
        classes = self._compile(version, jars, programs)
        for program in programs:
            self._run_java(cluster, (name, version), jars, classes, program, prefix)

    def java_old(self, cluster, name, prefix):
        """A Java client from before record batches; its topic is made by an earlier driver."""
        jars = self.jars(OLD_CLIENT, "old-pom.xml")
        classes = self._compile(OLD_CLIENT, jars, ["Old"])
        self._run_java(cluster, (name, OLD_CLIENT), jars, classes, "Old", prefix)

    def _compile(self, version, jars, programs):
        classes = self.home / f"classes-{version}"
        files = [self.sources / "java" / f"{name}.java" for name in ["Steps", *programs]]
        run("javac", "-nowarn", "-Xlint:none", "-cp", f"{jars}/*", "-d", classes, *files)
        return classes

    def _run_java(self, cluster, who, jars, classes, program, prefix):
        path = f"{classes}:{jars}/*"
        java = ["java", "-Xmx200m", "-XX:TieredStopAtLevel=1", "-cp", path, program]
        drive(cluster, who, [*java, *arguments(cluster, prefix)])

    def broker(self, version):
        """The class path of a broker: Kafka and our plugin."""
        jars = self.jars(version)
        return f"{self._compile(version, jars, ['Telemetry'])}:{jars}/*"

    def librdkafka(self, cluster, prefix):
        """librdkafka as bundled with the confluent-kafka wheel."""
        home = self.home / "venv"
        python = home / "bin" / "python"
        if not home.exists():
            venv.create(home, with_pip=True)
            run(python, "-m", "pip", "install", "-q", "confluent-kafka")
        asked = "import confluent_kafka as c; print(c.libversion()[0])"
        version = subprocess.run(
            [python, "-c", asked], check=True, capture_output=True, text=True
        ).stdout.strip()
        program = [python, self.sources / "python" / "drive.py"]
        drive(cluster, ("librdkafka", version), [*program, *arguments(cluster, prefix)])

    def kcat(self, cluster, prefix):
        """kcat of the distribution: an old librdkafka."""
        if shutil.which(KCAT) is None:
            run("apt-get", "install", "-y", "-q", KCAT)
        about = subprocess.run([KCAT, "-V"], capture_output=True, text=True).stdout
        version = about.split("librdkafka ")[1].split()[0]
        program = [sys.executable, self.sources / "python" / "drive_kcat.py"]
        drive(cluster, ("kcat", version), [*program, *arguments(cluster, prefix)])

    def franz(self, cluster, prefix):
        """franz-go, as itself and held back to the versions of older Kafkas."""
        module = self.sources / "franz-go"
        binary = self.home / "franz-go"
        run("go", "build", "-o", binary, ".", cwd=module)
        lines = (module / "go.mod").read_text().splitlines()
        wanted = [line.split() for line in lines if "twmb/franz-go v" in line]
        version = wanted[0][-1 if wanted[0][-1].startswith("v") else 1].lstrip("v")
        drive(cluster, ("franz-go", version), [binary, *arguments(cluster, prefix)])


def arguments(cluster, prefix):
    """What every driver is given."""
    plain, sasl = cluster.bootstrap(), cluster.bootstrap(sasl=True)
    brokers, state = str(len(cluster.brokers)), str(cluster.work / "state")
    return [plain, prefix, brokers, sasl, USER, PASSWORD, cluster.version, state]


def drive(cluster, who, command):
    """Runs a driver under its name and answers its wish to move leaders."""
    cluster.name_client(*who)
    print(f"-- {who[0]} {who[1]}: {Path(command[-9]).name}", flush=True)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    limit = threading.Timer(DRIVER_SECONDS, process.kill)
    limit.start()
    try:
        for line in process.stdout:
            print(f"   {line.rstrip()[:300]}", flush=True)
            if line.startswith("MOVE "):
                cluster.move(line.split()[1])
                process.stdin.write("moved\n")
                process.stdin.flush()
        process.wait()
    finally:
        limit.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        print(f"   ended with {process.returncode}", flush=True)


def run(*command, cwd=None):
    """Runs a tool to its end."""
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)
