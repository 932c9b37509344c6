"""An S3 service of its own, started and ended by compose/s3.sh."""

import pathlib
import subprocess
import time

from processes import Failed

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "compose" / "s3.sh"


class S3:
    """`kind`: versitygw, which checks signatures and sums, or moto. `folder` holds its objects."""

    def __init__(self, kind, folder):
        self.folder = folder
        started = subprocess.run(
            [SCRIPT, "start", "--kind", kind, "--dir", folder],
            stdout=subprocess.PIPE, text=True, check=False,
        )
        if started.returncode:
            raise Failed(f"no S3 service of kind {kind}")
        told = dict(line.split("=", 1) for line in started.stdout.splitlines())
        self.address = told["MINIO_ENDPOINT"]
        self.access_key = told["MINIO_ACCESS_KEY"]
        self.secret_key = told["MINIO_SECRET_KEY"]
        self.bucket = told["S3_BUCKET"]
        self.pid = int((folder / "pid").read_text())

    def cpu_s(self):
        return time.clock_gettime(((~self.pid) << 3) | 2)

    def close(self):
        subprocess.run([SCRIPT, "stop", "--dir", self.folder], check=False)
