"""Runs one case against a gateway and prints what was seen as one line of JSON. Whether that is right, main.rs says."""

import argparse
import json
import random
import select
import time

from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite

from peer import PATIENCE, Path, Peer

# What is sent where a lot has to pass.
MANY_BYTES = 400_000
# Until a first flight is sent again that was not answered.
KNOCK_AGAIN = 0.2


def payload(length, seed=7):
    return random.Random(seed).randbytes(length)


def handshake(args):
    peer = Peer(args, Path(args.gateway)).link()
    is_whole = peer.end(peer.open(), payload(10_000))
    return {
        "version": peer.quic._version,
        "alpn": peer.alpn,
        "identity": peer.identity(),
        "isWhole": is_whole,
    }


def ciphers(args):
    agreed = []
    for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"):
        peer = Peer(args, Path(args.gateway), cipher_suites=[CipherSuite[cipher]]).link()
        if peer.end(peer.open(), payload(1_000)):
            agreed.append(peer.quic.tls.key_schedule.cipher_suite.name)
    return {"agreed": agreed}


def version(args):
    versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
    peer = Peer(args, Path(args.gateway), supported_versions=versions).link()
    return {
        "isNegotiated": peer.quic._version_negotiated_incompatible,
        "version": peer.quic._version,
        "isWhole": peer.end(peer.open(), payload(1_000)),
    }


def amplification(args):
    path = Path(args.gateway)
    peer = Peer(args, path)
    for datagram, _ in peer.quic.datagrams_to_send(time.monotonic()):
        path.send(datagram)
    # Long enough for the gateway to ask more than once for an answer that never comes.
    end = time.monotonic() + args.seconds
    datagrams = 0
    while (left := end - time.monotonic()) > 0:
        select.select([path.socket], [], [], left)
        datagrams += sum(1 for _ in path.receive())
    return {"sent": path.counts["bytes_out"], "received": path.counts["bytes_in"], "datagrams": datagrams}


def knock(peer):
    """Sends the first flight until it is answered, and goes no further."""
    flight = [datagram for datagram, _ in peer.quic.datagrams_to_send(time.monotonic())]
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for datagram in flight:
            peer.path.send(datagram)
        # Of many at once the gateway looks at some.
        if select.select([peer.path.socket], [], [], KNOCK_AGAIN)[0]:
            return
    raise SystemExit("one of the crowd was not answered")


def retry(args):
    # Nobody but the last one goes on: the gateway has so many handshakes under way that it asks who comes.
    crowd = [Peer(args, Path(args.gateway)) for _ in range(args.crowd)]
    for other in crowd:
        knock(other)
    peer = Peer(args, Path(args.gateway)).link()
    return {"retries": peer.quic._retry_count, "isWhole": peer.end(peer.open(), payload(10_000))}


def multiplexing(args):
    peer = Peer(args, Path(args.gateway)).link()
    streams = [peer.open() for _ in range(args.crowd)]
    peer.until("every stream to be accepted", lambda: all(map(peer.is_accepted, streams)))
    # None has ended by now.
    for stream in streams:
        peer.quic.send_stream_data(stream, payload(5_000, stream), end_stream=True)
    peer.until("every stream to end", lambda: peer.finished.issuperset(streams))
    whole = sum(peer.heard(stream) == payload(5_000, stream) for stream in streams)
    return {"whole": whole}


def key_update(args):
    peer = Peer(args, Path(args.gateway)).link()
    stream = peer.open()
    are_whole = [peer.say(stream, payload(10_000))]
    for turn in range(3):
        peer.quic.request_key_update()
        # aioquic now reads with the next keys alone: what comes back was sealed with them.
        are_whole.append(peer.say(stream, payload(10_000, turn)))
    are_whole.append(peer.end(stream, payload(100)))
    # The gateway may change its own at any time, too: quinn does so for the first time at a random packet.
    return {"asked_for": peer.key_updates()["local_update"], "isWhole": all(are_whole)}


def bad_path(args):
    """A path that is bad from the first packet on."""
    path = Path(args.gateway)
    path.loss, path.corruption = args.loss, args.corruption
    peer = Peer(args, path).link()
    return {"isWhole": peer.end(peer.open(), payload(MANY_BYTES)), **path.counts}


def blackhole(args):
    path = Path(args.gateway)
    peer = Peer(args, path).link()
    stream = peer.open()
    data = payload(MANY_BYTES)
    peer.quic.send_stream_data(stream, data, end_stream=True)
    peer.until("some of it to come back", lambda: len(peer.heard(stream) or b"") > MANY_BYTES // 8)
    before = len(peer.heard(stream))
    path.is_dark = True
    peer.go_on(args.seconds)
    within = len(peer.heard(stream)) - before
    path.is_dark = False
    peer.until("the end of the stream", lambda: stream in peer.finished)
    return {"before": before, "within": within, "isWhole": peer.heard(stream) == data, **path.counts}


def rebinding(args):
    """Another port, another address if one is named, and another connection ID if it is ours to move."""
    path = Path(args.gateway)
    peer = Peer(args, path).link()
    stream = peer.open()
    are_whole = [peer.say(stream, payload(20_000))]
    ids = [peer.quic._peer_cid.cid.hex()]
    if args.moves:
        peer.quic.change_connection_id()
    path.rebind(args.own)
    are_whole.append(peer.say(stream, payload(100_000)))
    ids.append(peer.quic._peer_cid.cid.hex())
    peer.until("the new path to be challenged", lambda: peer.frames()["path_challenge"] > 0)
    are_whole.append(peer.end(stream, payload(20_000)))
    return {
        "isWhole": all(are_whole),
        "challenges": peer.frames()["path_challenge"],
        "sinceRebinding": path.counts["since_rebinding"],
        "hasOtherId": ids[0] != ids[1],
    }


CASES = {
    case.__name__: case
    for case in (
        handshake,
        ciphers,
        version,
        amplification,
        retry,
        multiplexing,
        key_update,
        bad_path,
        blackhole,
        rebinding,
    )
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--gateway", nargs=2, required=True, metavar=("ADDRESS", "PORT"))
    parser.add_argument("--certificate", required=True, help="ours, as PEM")
    parser.add_argument("--key", required=True)
    parser.add_argument("--root", required=True, help="the gateway's")
    parser.add_argument("--open", required=True, type=bytes.fromhex, help="the message that opens a stream")
    parser.add_argument("--reply", required=True, type=bytes.fromhex, help="the message that accepts it")
    parser.add_argument("--crowd", type=int, default=0, help="how many at once")
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--corruption", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--own", help="another address of ours")
    parser.add_argument("--moves", action="store_true")
    args = parser.parse_args()
    args.gateway = (args.gateway[0], int(args.gateway[1]))
    print(json.dumps(CASES[args.case](args)))


main()
