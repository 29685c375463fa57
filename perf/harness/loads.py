"""The loads: each is bounded, ends by itself, and gives either a sample or the reason why there is none."""

import json
import re
import subprocess
import time

from .lab import CONGESTION
from .machine import Cpu, resident_bytes

# A load may take this much longer than it was asked to.
GRACE_SECONDS = 20
# More failed connections than this, as a share of those that succeeded, and a sample says nothing.
ERRORS_MAX = 0.001

CRR_CONNECTIONS = 64
HELD_CONNECTIONS = 8000
# jemalloc and others give memory back only after a while (10 s by default).
SETTLE_SECONDS = 12


class NoData(Exception):
    """A load ran, or tried to, and gave nothing that may be counted."""


def bulk(lab, system, server, seconds, streams, upwards):
    """iperf3 from the client to the server (`upwards`) or back, over `streams` connections.

    Gives Gb/s as the receiver saw them, CPU seconds of the machine per gigabyte, and the shares of the machine that
    others used and that was stolen.
    """
    host, port = system.address("bulk")
    argv = ["iperf3", "-J", "-c", host, "-p", str(port), "-t", str(seconds), "-P", str(streams)]
    argv += [] if upwards else ["-R"]
    before = Cpu()
    done = lab.run("client", argv, seconds + GRACE_SECONDS)
    used, foreign, steal = Cpu().since(before)
    try:
        if done is None:
            raise NoData("iperf3 did not end")
        result = json.loads(done.stdout or "{}")
        if result.get("error") or done.returncode != 0:
            raise NoData(f"iperf3: {result.get('error') or done.stderr.strip()}")
        received = result["end"]["sum_received"]
        if not received["bytes"]:
            raise NoData("iperf3 received nothing")
        algorithm = result["end"].get("sender_tcp_congestion", CONGESTION)
        if algorithm != CONGESTION:
            raise NoData(f"the sender's congestion control was {algorithm}")
    except (NoData, ValueError, KeyError) as error:
        server.restart_iperf(lab)
        raise NoData(str(error)) from error
    return {
        "gbps": received["bits_per_second"] / 1e9,
        "cpu_s_per_gb": used / (received["bytes"] / 1e9),
        "foreign": foreign,
        "steal": steal,
    }


def wrk(lab, system, seconds, connections, extra=()):
    """Runs wrk with one thread; returns its text and what the machine did meanwhile."""
    host, port = system.address("web")
    argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", "--timeout", "10s"]
    argv += [*extra, f"http://{host}:{port}/"]
    before = Cpu()
    done = lab.run("client", argv, seconds + GRACE_SECONDS)
    spent = Cpu().since(before)
    if done is None:
        raise NoData("wrk did not end")
    if done.returncode != 0:
        raise NoData(f"wrk: {(done.stderr or done.stdout).strip()}")
    requests = int(matched(r"(\d+) requests in", done.stdout))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    failed = sum(map(int, errors.groups())) if errors else 0
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    failed += int(refused.group(1)) if refused else 0
    if requests == 0:
        raise NoData("wrk got no answer")
    if failed > requests * ERRORS_MAX:
        raise NoData(f"{failed} of {requests + failed} requests failed ({errors.group(0) if errors else 'bad status'})")
    return done.stdout, requests, failed, spent


def crr(lab, system, seconds):
    """Connect, request, response, close, by CRR_CONNECTIONS clients at once."""
    text, requests, failed, (used, foreign, steal) = wrk(
        lab, system, seconds, CRR_CONNECTIONS, ("-H", "Connection: close")
    )
    return {
        "per_second": float(matched(r"Requests/sec:\s+([\d.]+)", text)),
        "failed": failed,
        "cpu_s_per_1000": used / (requests / 1000),
        "foreign": foreign,
        "steal": steal,
    }


def rr(lab, system, seconds):
    """One request after the other on one kept connection: microseconds from request to response."""
    text, _, failed, (_, foreign, steal) = wrk(lab, system, seconds, 1)
    return {
        "p50_us": microseconds(matched(r"^\s+50%\s+(\S+)", text)),
        "p99_us": microseconds(matched(r"^\s+99%\s+(\S+)", text)),
        "failed": failed,
        "foreign": foreign,
        "steal": steal,
    }


def idle(lab, system, connections=HELD_CONNECTIONS, settle=SETTLE_SECONDS):
    """Memory of freshly started gateways: with nothing to do, and while they hold `connections` idle connections,
    each of which has carried a few bytes in both directions before."""
    system.stop()
    system.start(lab)
    try:
        system.must_work(lab)
        time.sleep(3)
        before = memory(system)
        host, port = system.address("echo")
        life = 120 + settle
        holder = lab.start_tool(
            "client", f"hold-{system.key}", "hold", host, port, connections, life, stdin=subprocess.PIPE
        )
        started = time.monotonic()
        try:
            holder.wait_for_line("}", life)
            took = time.monotonic() - started
            report = json.loads(first(holder))
            if report["held"] < connections:
                raise NoData(f"only {report['held']} of {connections} connections were held: {report['failures']}")
            time.sleep(settle)
            held = memory(system)
        finally:
            holder.popen.stdin.close()
            wait_quietly(holder.popen)
            holder.stop()
        broken = json.loads(holder.tail(1)).get("broken")
        if broken != 0:
            raise NoData(f"{broken} of {connections} connections broke while they were held")
    finally:
        system.stop()
        system.start(lab)
        system.must_work(lab)
    return {
        "connections": connections,
        "opened_in_s": round(took, 2),
        "retried": report["retried"],
        "idle_bytes": before,
        "held_bytes": held,
        "per_connection": {side: (held[side] - before[side]) / connections for side in before},
    }


def memory(system):
    """RSS in bytes of the gateways of both sides."""
    return {side: resident_bytes(process.pid) for side, process in sorted(system.processes.items())}


def first(process):
    with open(process.log, errors="replace") as file:
        return file.readline()


def wait_quietly(popen):
    try:
        popen.wait(10)
    except subprocess.TimeoutExpired:
        pass


def matched(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise NoData(f"no {pattern!r} in: {text.strip()[:200]}")
    return found.group(1)


def microseconds(text):
    """`412.00us`, `1.20ms` or `2.00s` as microseconds."""
    for unit, factor in (("us", 1), ("ms", 1000), ("s", 1_000_000)):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * factor
    raise NoData(f"what time is {text!r}?")
