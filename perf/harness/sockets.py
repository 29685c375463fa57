#!/usr/bin/env python3
"""Small programs that run inside a namespace.

    echo PORT LIFE              echoes what comes, on every connection, for LIFE seconds
    hold ADDRESS PORT N LIFE    opens N connections, passes a few bytes through each, prints JSON, keeps them
                                until standard input ends or LIFE seconds have passed
    probe ADDRESS PORT          0 if bytes sent there come back
    features DEVICE...          prints the offloads of each device as JSON
"""

import array
import asyncio
import fcntl
import json
import resource
import socket
import struct
import sys

GREETING = b"corinth-perf: are you there?\n"
# Connections being opened at once, and how long each may take, attempts included.
OPENING_MAX = 100
OPEN_SECONDS = 20
TRIES = 3

SIOCETHTOOL = 0x8946
FEATURES = {"tso": 0x1E, "gso": 0x23, "gro": 0x2B, "tx-checksum": 0x16, "rx-checksum": 0x14, "sg": 0x18}


def all_descriptors():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def echo(port, life):
    server = await asyncio.get_running_loop().create_server(Echo, "0.0.0.0", port, backlog=4096)
    async with server:
        await asyncio.sleep(life)


async def greet(address, port):
    """Opens a connection and passes a few bytes through it: only then is the far end known to be there."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(GREETING)
        if await reader.readexactly(len(GREETING)) != GREETING:
            raise ConnectionError("other bytes came back")
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def hold(address, port, count, life):
    held, failures, retried = [], [], 0
    free = asyncio.Semaphore(OPENING_MAX)

    async def one():
        nonlocal retried
        async with free:
            for attempt in range(TRIES):
                try:
                    held.append(await asyncio.wait_for(greet(address, port), OPEN_SECONDS))
                    return
                except (OSError, EOFError, asyncio.TimeoutError) as error:
                    failures.append(f"{type(error).__name__}: {error}")
                    retried += attempt < TRIES - 1
                    await asyncio.sleep(0.2)

    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.gather(*(one() for _ in range(count)))
    print(json.dumps({
        "held": len(held), "retried": retried, "seconds": round(loop.time() - started, 3), "failures": failures[:5],
    }), flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), life)
    except asyncio.TimeoutError:
        pass
    broken = sum(reader.at_eof() or reader.exception() is not None for reader, _ in held)
    print(json.dumps({"broken": broken}), flush=True)


def probe(address, port):
    try:
        with socket.create_connection((address, port), 2) as stream:
            stream.settimeout(2)
            stream.sendall(GREETING)
            got = b""
            while len(got) < len(GREETING):
                part = stream.recv(4096)
                if not part:
                    return 1
                got += part
            return int(got != GREETING)
    except OSError as error:
        print(error)
        return 1


def features(devices):
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        for device in devices:
            found[device] = {}
            for name, command in FEATURES.items():
                value = array.array("I", [command, 0])
                request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
                try:
                    fcntl.ioctl(stream, SIOCETHTOOL, request)
                    found[device][name] = bool(value[1])
                except OSError:
                    found[device][name] = None
    print(json.dumps(found))


def main():
    what, *rest = sys.argv[1:]
    if what == "echo":
        all_descriptors()
        asyncio.run(echo(int(rest[0]), float(rest[1])))
    elif what == "hold":
        all_descriptors()
        asyncio.run(hold(rest[0], int(rest[1]), int(rest[2]), float(rest[3])))
    elif what == "probe":
        sys.exit(probe(rest[0], int(rest[1])))
    elif what == "features":
        features(rest)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
