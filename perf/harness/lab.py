"""Four network namespaces in a row, client – gateway A – gateway B – server, and the processes in them.

Everything that is started here is ended here, by its own pid; a namespace carries the pid of the run that made it,
so that what a killed run left behind can be told from what another run is using.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PREFIX = "corinth-perf"
SIDES = ("client", "a", "b", "server")

CLIENT_IP = "10.71.1.1"
A_NEAR_IP, A_FAR_IP = "10.71.1.2", "10.71.2.1"
B_NEAR_IP, B_FAR_IP = "10.71.2.2", "10.71.3.1"
SERVER_IP = "10.71.3.2"

# Side, its address, the next side, its address.
WIRES = (
    ("client", CLIENT_IP, "a", A_NEAR_IP),
    ("a", A_FAR_IP, "b", B_NEAR_IP),
    ("b", B_FAR_IP, "server", SERVER_IP),
)
# Side, network it does not touch, next hop.
ROUTES = (
    ("client", "10.71.0.0/16", A_NEAR_IP),
    ("a", "10.71.3.0/24", B_NEAR_IP),
    ("b", "10.71.1.0/24", A_FAR_IP),
    ("server", "10.71.0.0/16", B_FAR_IP),
)

# Set in every namespace. The listeners all lie below the ephemeral ports, and ports in TIME_WAIT are used again
# after a second: otherwise a minute of short connections would measure the lack of ports.
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.ip_local_port_range": "12000 65000",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "8192",
}
# Hung on the routes: where it is not what the host allows everyone, a namespace may not make it its default.
CONGESTION = "cubic"

DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None, use_errno=True)


class CannotMeasure(Exception):
    """What is needed for a measurement is not there or does not work."""


def _die_with_parent():
    _libc.prctl(DEATH_SIGNAL, signal.SIGTERM)


def tool(name):
    """The path of a program, sbin included."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def output(*argv, timeout=20):
    """Standard output of a command that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise CannotMeasure(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Process:
    """A long-running process in a namespace; standard output and error go to a file."""

    def __init__(self, name, popen, log):
        self.name, self.popen, self.log = name, popen, log
        self.pid = popen.pid

    def tail(self, lines=15):
        with open(self.log, errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def must_run(self):
        if self.popen.poll() is not None:
            raise CannotMeasure(f"{self.name} ended with {self.popen.returncode}:\n{self.tail()}")

    def wait_for_line(self, needle, seconds):
        """Until `needle` stands in the log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.must_run()
            with open(self.log, errors="replace") as file:
                if needle in file.read():
                    return
            time.sleep(0.02)
        raise CannotMeasure(f"{self.name} did not say {needle!r} within {seconds} s:\n{self.tail()}")

    def stop(self, seconds=5):
        if self.popen.poll() is not None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(5)


class Lab:
    """The namespaces. Use it as a context: leaving it ends every process and removes every namespace."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.counter = 0

    def namespace(self, side):
        return f"{PREFIX}-{os.getpid()}-{side}"

    def __enter__(self):
        try:
            remove_leftovers()
            for side in SIDES:
                output("ip", "netns", "add", self.namespace(side))
                self.ip(side, "link", "set", "lo", "up")
                for name, value in SYSCTLS.items():
                    self.sysctl(side, name, value)
            for left, left_ip, right, right_ip in WIRES:
                near, far = f"to-{right}", f"to-{left}"
                output(
                    "ip", "link", "add", near, "netns", self.namespace(left), "type", "veth",
                    "peer", "name", far, "netns", self.namespace(right),
                )
                for side, device, address in ((left, near, left_ip), (right, far, right_ip)):
                    self.ip(side, "address", "add", f"{address}/24", "dev", device, "noprefixroute")
                    self.ip(side, "link", "set", device, "up")
                    network = address.rpartition(".")[0] + ".0/24"
                    self.ip(side, "route", "add", network, "dev", device, "src", address, "congctl", CONGESTION)
            for side, network, hop in ROUTES:
                self.ip(side, "route", "add", network, "via", hop, "congctl", CONGESTION)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop(3)
        for side in SIDES:
            subprocess.run(["ip", "netns", "del", self.namespace(side)], capture_output=True)

    def ip(self, side, *arguments):
        return output("ip", "-n", self.namespace(side), *arguments)

    def sysctl(self, side, name, value=None):
        """Sets it, or reads it; returns what the kernel says."""
        path = "/proc/sys/" + name.replace(".", "/")
        if value is not None:
            output(*self.inside(side, ["sh", "-c", f"echo {value} > {path}"]))
        got = " ".join(output(*self.inside(side, ["cat", path])).split())
        if value is not None and got != value:
            raise CannotMeasure(f"{name} is {got} in {side}, not {value}")
        return got

    def congestion_controls(self, side):
        """Those of the connections that are open there now."""
        listed = output(*self.inside(side, ["ss", "-tinH", "state", "established"]))
        known = self.sysctl(side, "net.ipv4.tcp_available_congestion_control").split()
        return sorted(name for name in known if re.search(rf"^\s+{name} ", listed, re.MULTILINE))

    def inside(self, side, argv):
        return ["ip", "netns", "exec", self.namespace(side), *argv]

    def run(self, side, argv, seconds):
        """Runs a command in a namespace to its end, which it must reach within `seconds`."""
        try:
            return subprocess.run(
                self.inside(side, argv), capture_output=True, text=True, timeout=seconds,
                stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent,
            )
        except subprocess.TimeoutExpired:
            return None

    def start(self, side, name, argv, stdin=subprocess.DEVNULL):
        """Starts a process that runs until it is stopped."""
        self.counter += 1
        log = os.path.join(self.folder, f"{self.counter:03}-{name}.log")
        with open(log, "wb") as file:
            popen = subprocess.Popen(
                self.inside(side, argv), stdin=stdin, stdout=file, stderr=file,
                start_new_session=True, preexec_fn=_die_with_parent,
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def start_tool(self, side, name, *arguments, **options):
        """Starts a part of `sockets.py` in a namespace."""
        return self.start(side, name, self.sockets(*arguments), **options)

    @staticmethod
    def sockets(*arguments):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sockets.py")
        return [sys.executable, "-B", script, *map(str, arguments)]

    def wait_for_port(self, side, port, seconds=5):
        """Until somebody listens on TCP `port` there."""
        needle = re.compile(rf"^\s*\d+: [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ", re.MULTILINE)
        files = ["cat", "/proc/net/tcp", "/proc/net/tcp6"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done = self.run(side, files, 5)
            if done and needle.search(done.stdout):
                return
            time.sleep(0.02)
        raise CannotMeasure(f"nobody listens on port {port} in {side}")


def remove_leftovers():
    """Removes the namespaces and temporary folders of runs whose process is gone."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split()
    for name in listed:
        if is_leftover(name):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
    for name in os.listdir(tempfile.gettempdir()):
        if is_leftover(name):
            shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)


def is_leftover(name):
    made_by = re.match(rf"{PREFIX}-(\d+)-", name)
    return bool(made_by) and not os.path.exists(f"/proc/{made_by.group(1)}")
