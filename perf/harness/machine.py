"""What the machine is, and where its CPU time goes.

The time of the whole machine is counted, not that of single processes: on one machine the kernel charges the
receiver's TCP work to whoever sends, so that the time of a process says little. What processes outside of this run
used meanwhile is taken off.
"""

import hashlib
import json
import os
import re
import subprocess
import time

from . import lab as labs

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Cpu:
    """CPU time of the machine at one moment, in seconds."""

    def __init__(self):
        with open("/proc/stat") as file:
            user, nice, system, idle, waiting, irq, softirq, steal = map(int, file.readline().split()[1:9])
        self.at = time.monotonic()
        self.busy = (user + nice + system + irq + softirq) / TICKS
        self.steal = steal / TICKS
        self.foreign = foreign_seconds()

    def since(self, earlier):
        """(seconds used for us, share of the machine that others used, share that was stolen)"""
        wall = max(self.at - earlier.at, 1e-6) * os.cpu_count()
        foreign = max(self.foreign - earlier.foreign, 0.0)
        used = max(self.busy - earlier.busy - foreign, 0.0)
        return used, foreign / wall, max(self.steal - earlier.steal, 0.0) / wall


def foreign_seconds():
    """CPU seconds of all processes that are neither ours nor the kernel's.

    The time of children that have ended is counted with their parent, so that a compiler that came and went between
    two calls is in the difference.
    """
    times, parents = {}, {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        times[int(name)] = sum(map(int, fields[11:15]))
    own = os.getpid()

    def is_foreign(pid):
        seen = 0
        while pid and seen < 64:
            if pid in (own, 2):
                return False
            pid, seen = parents.get(pid, 0), seen + 1
        return True

    return sum(spent for pid, spent in times.items() if is_foreign(pid)) / TICKS


def resident_bytes(pid):
    """RSS of a process and its descendants."""
    with open(f"/proc/{pid}/status") as file:
        own = int(re.search(r"VmRSS:\s+(\d+) kB", file.read()).group(1)) * 1024
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except OSError:
        children = []
    return own + sum(resident_bytes(int(child)) for child in children)


def first_line(*argv):
    """The first line that a command says about itself."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    except OSError:
        return "not installed"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else "says nothing"


def git_revision():
    base = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT]
    revision = first_line(*base, "rev-parse", "--short=12", "HEAD")
    changed = subprocess.run(
        [*base, "status", "--porcelain", "--untracked-files=no", "--", "gateway", "control", "Cargo.lock"],
        capture_output=True, text=True,
    ).stdout.strip()
    return revision + (" with uncommitted changes" if changed else "")


def cpu_name():
    with open("/proc/cpuinfo") as file:
        found = re.search(r"model name\s*:\s*(.*)", file.read())
    return found.group(1) if found else "unknown"


def governor():
    try:
        with open("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") as file:
            return file.read().strip()
    except OSError:
        return "none visible"


def binary(path):
    """What identifies a binary of ours."""
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return {
        "path": os.path.relpath(path, ROOT) if path.startswith(ROOT) else path,
        "sha256": digest[:16],
        "built": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(os.path.getmtime(path))),
    }


def describe(lab, gateway):
    """Everything that a reader needs to judge the figures, as an ordered mapping."""
    device = "to-b"
    link = lab.ip("a", "-o", "link", "show", "dev", device)
    offloads = json.loads(output_of_tool(lab, "a", "features", device))[device]
    qdisc = re.search(r"qdisc (\S+)", link)
    return {
        "kernel": os.uname().release,
        "cpu": f"{os.cpu_count()} × {cpu_name()}, governor {governor()}",
        "congestion control": ", ".join(lab.congestion_controls("a")) + " (of the connections of gateway A)",
        "MTU": re.search(r"mtu (\d+)", link).group(1),
        "qdisc": qdisc.group(1) if qdisc else "unknown",
        "offloads": ", ".join(f"{name} {'on' if on else 'off'}" for name, on in offloads.items()),
        "tcp_rmem": lab.sysctl("a", "net.ipv4.tcp_rmem"),
        "tcp_wmem": lab.sysctl("a", "net.ipv4.tcp_wmem"),
        "git": git_revision(),
        "corinth-gateway": "{path}, built {built}, sha256 {sha256}".format(**binary(gateway)),
        "haproxy": first_line(labs.tool("haproxy") or "haproxy", "-v"),
        "nginx": first_line(labs.tool("nginx") or "nginx", "-v"),
        "openssl": first_line("openssl", "version"),
        "iperf3": first_line("iperf3", "--version"),
        "wrk": first_line("wrk", "-v"),
        "descriptors": first_line("sh", "-c", "ulimit -n"),
    }


def output_of_tool(lab, side, *arguments):
    done = lab.run(side, lab.sockets(*arguments), 10)
    if not done or done.returncode != 0:
        raise labs.CannotMeasure(f"{arguments[0]}: {done.stderr if done else 'not done in time'}")
    return done.stdout
