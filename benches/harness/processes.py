"""Processes of a bench: started and ended by pid, their CPU and memory, lines to and from them.

CPU time is the kernel's process clock: every thread counts, those that have ended too.
"""

import json
import os
import select
import signal
import subprocess
import time

STOP_SECONDS = 10
ANSWER_SECONDS = 300


class Failed(Exception):
    """A run that cannot count: something was refused, went missing, or did not answer."""


class Process:
    """One started process. `close` ends it: TERM first, KILL when it does not obey."""

    def __init__(self, command, log=None, talks=False, cwd=None):
        self.command = [str(word) for word in command]
        self.name = os.path.basename(self.command[0])
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        self.log = open(log, "ab") if log else None
        self.popen = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe if talks else self.log, stderr=self.log,
            cwd=cwd, start_new_session=True,
        )
        self.pid = self.popen.pid
        self.rest = b""

    def alive(self):
        return self.popen.poll() is None

    def cpu_s(self):
        """User and system seconds so far."""
        return time.clock_gettime(((~self.pid) << 3) | 2)

    def memory_kb(self, what="VmRSS"):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(what + ":"):
                    return int(line.split()[1])
        raise Failed(f"{self.name}: no {what}")

    def ask(self, line, seconds=ANSWER_SECONDS):
        """Sends a line and returns the JSON object that answers it."""
        self.tell(line)
        return self.answer(seconds)

    def tell(self, line):
        try:
            self.popen.stdin.write(line.encode() + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name} has ended{self.last_words()}") from None

    def answer(self, seconds=ANSWER_SECONDS):
        end = time.monotonic() + seconds
        out = self.popen.stdout.fileno()
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise Failed(f"{self.name} did not answer in {seconds} s")
            piece = os.read(out, 65536)
            if not piece:
                raise Failed(f"{self.name} has ended{self.last_words()}")
            self.rest += piece
        line, self.rest = self.rest.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer

    def last_words(self):
        if not self.log:
            return ""
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            lines = log.read().strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive():
                break
            self.popen.send_signal(number)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        for pipe in (self.popen.stdin, self.popen.stdout, self.log):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


def machine_busy_s():
    """CPU seconds of the whole machine so far, the hypervisor's theft included."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = ticks
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def run_json(command, log, seconds=ANSWER_SECONDS):
    """Runs a command to its end and returns the one JSON object it prints."""
    process = Process(command, log, talks=True)
    try:
        return process.answer(seconds)
    finally:
        process.close()
