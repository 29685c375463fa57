"""A gateway of a peer as aioquic makes it: QUIC, TLS and congestion control of another implementation than the gateway's.

`Path` is the network: a socket, and what happens to the datagrams on it. `Peer` is a connection over a path that speaks
docs/protocol.md. Everything runs in one thread, driven by `Peer.until`.
"""

import random
import select
import socket
import ssl
import time
from collections import Counter

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.logger import QuicLogger
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509

# PING on a control connection: type, flags, length, stream; then role and nonce. And the PONG for it, of one slot, up to
# its last byte.
PING = bytes([6, 0, 0, 9, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7])
PONG = bytes([7, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1])
# In the last byte, which says besides which worker answers.
NOT_A_WORKER = 0b1000_0001
# In front of a probe in a datagram.
PROBE = bytes([0])
# Seconds between two probes.
PROBE_INTERVAL = 0.2
# Most seconds that are waited for anything.
PATIENCE = 30


class Path:
    """The way to the gateway. Shares of datagrams are lost or damaged at random, the same way each time."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.loss = 0.0
        self.corruption = 0.0
        self.is_dark = False
        self.counts = Counter()
        self.random = {"out": random.Random(1), "in": random.Random(2)}
        # A network that gave us another address is silent at the old one: it is kept and never read.
        self.left = []
        self.socket = None
        self.rebind()

    def rebind(self, address=None):
        """From now on we come from another port, and from this address of ours if one is named."""
        family = socket.AF_INET6 if ":" in self.gateway[0] else socket.AF_INET
        if self.socket is not None:
            self.left.append(self.socket)
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((address or ("::" if family == socket.AF_INET6 else "0.0.0.0"), 0))
        self.counts["since_rebinding"] = 0

    def send(self, datagram):
        datagram = self.carry("out", datagram)
        if datagram is not None:
            self.socket.sendto(datagram, self.gateway)

    def receive(self):
        """What has arrived."""
        while True:
            try:
                datagram, _ = self.socket.recvfrom(65536)
            except BlockingIOError:
                return
            self.counts["since_rebinding"] += 1
            datagram = self.carry("in", datagram)
            if datagram is not None:
                yield datagram

    def carry(self, direction, datagram):
        """The datagram as it arrives, if it does."""
        self.counts[f"bytes_{direction}"] += len(datagram)
        chance = self.random[direction]
        if self.is_dark:
            self.counts[f"swallowed_{direction}"] += 1
            return None
        if chance.random() < self.loss:
            self.counts[f"lost_{direction}"] += 1
            return None
        if chance.random() < self.corruption:
            self.counts[f"corrupted_{direction}"] += 1
            at = chance.randrange(len(datagram))
            return datagram[:at] + bytes([datagram[at] ^ chance.randrange(1, 256)]) + datagram[at + 1 :]
        return datagram


def is_pong(received):
    """Whether it is the answer to a PING, of a gateway that does not drain."""
    return received[:-1] == PONG and not received[-1] & NOT_A_WORKER


class Peer:
    """A connection to the gateway. What comes on streams is kept until it is asked for."""

    def __init__(self, args, path, **configured):
        self.args = args
        self.path = path
        configured.setdefault("supported_versions", [QuicProtocolVersion.VERSION_1])
        configuration = QuicConfiguration(
            alpn_protocols=["corinth/1"],
            is_client=True,
            # The certificate names no host; whose it is, the case tells.
            verify_mode=ssl.CERT_NONE,
            max_datagram_frame_size=65536,
            quic_logger=QuicLogger(),
            **configured,
        )
        configuration.load_cert_chain(args.certificate, args.key)
        self.log = configuration.quic_logger
        self.quic = QuicConnection(configuration=configuration)
        self.is_secured = False
        self.alpn = None
        self.ended = None
        self.received = {}
        self.finished = set()
        self.probe_at = None
        self.quic.connect(path.gateway, now=time.monotonic())

    def until(self, what, is_there, within=PATIENCE):
        """Goes on until `is_there`, which `what` says in words."""
        deadline = time.monotonic() + within
        while not is_there():
            if self.ended is not None:
                raise SystemExit(f"the connection ended while waiting for {what}: {self.ended}")
            if time.monotonic() >= deadline:
                raise SystemExit(f"waited {within} s for {what}")
            self.turn(deadline)

    def go_on(self, seconds):
        """Goes on for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn(end)

    def turn(self, deadline):
        """Sends what is to be sent, and waits for one more thing to happen."""
        now = time.monotonic()
        if self.probe_at is not None and now >= self.probe_at:
            self.quic.send_datagram_frame(PROBE + PING)
            self.probe_at = now + PROBE_INTERVAL
        for datagram, _ in self.quic.datagrams_to_send(now):
            self.path.send(datagram)
        timers = [at for at in (self.quic.get_timer(), self.probe_at) if at is not None]
        select.select([self.path.socket], [], [], max(min([deadline, *timers]) - now, 0))
        now = time.monotonic()
        for datagram in self.path.receive():
            self.quic.receive_datagram(datagram, self.path.gateway, now)
        timer = self.quic.get_timer()
        if timer is not None and now >= timer:
            self.quic.handle_timer(now)
        while (event := self.quic.next_event()) is not None:
            self.handle(event)

    def handle(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.is_secured = True
            self.alpn = event.alpn_protocol
        elif isinstance(event, events.StreamDataReceived):
            self.received.setdefault(event.stream_id, bytearray()).extend(event.data)
            if event.end_stream:
                self.finished.add(event.stream_id)
        elif isinstance(event, events.StreamReset):
            self.ended = f"stream {event.stream_id} was reset with {event.error_code}"
        elif isinstance(event, events.ConnectionTerminated):
            self.ended = f"{event.error_code:#x} {event.reason_phrase}"

    def link(self):
        """Shakes hands and exchanges the first PING and PONG, after which streams may be opened."""
        self.until("the handshake", lambda: self.is_secured)
        control = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(control, PING)
        # The gateway's first stream of one direction.
        self.until("the first PONG", lambda: is_pong(bytes(self.received.get(3, b""))))
        self.probe_at = time.monotonic() + PROBE_INTERVAL
        return self

    def open(self):
        """Opens a stream to the service; yields its number."""
        stream = self.quic.get_next_available_stream_id()
        self.quic.send_stream_data(stream, len(self.args.open).to_bytes(2) + self.args.open)
        return stream

    def is_accepted(self, stream):
        return self.heard(stream) is not None

    def heard(self, stream):
        """What came after the answer that accepts the stream; `None` before it."""
        reply = len(self.args.reply).to_bytes(2) + self.args.reply
        received = self.received.get(stream, b"")
        if len(received) < len(reply):
            return None
        if not received.startswith(reply):
            raise SystemExit(f"stream {stream} was not accepted: {bytes(received[:100]).hex()}")
        return bytes(received[len(reply) :])

    def say(self, stream, payload):
        """Sends on an open stream, and waits until it came back."""
        before = len(self.heard(stream) or b"")
        self.quic.send_stream_data(stream, payload)
        self.until("the echo", lambda: len(self.heard(stream) or b"") >= before + len(payload))
        return self.heard(stream)[before:] == payload

    def end(self, stream, payload):
        """Sends the last bytes of a stream, and waits for the end of the other direction."""
        before = len(self.heard(stream) or b"")
        self.quic.send_stream_data(stream, payload, end_stream=True)
        self.until("the end of a stream", lambda: stream in self.finished)
        return self.heard(stream)[before:] == payload

    def key_updates(self):
        """How many times the keys changed, by whose wish it was."""
        updates = (event["data"] for event in self.events() if event["name"] == "security:key_updated")
        return Counter(update["trigger"] for update in updates if update["key_type"] == "server_1rtt_secret")

    def frames(self):
        """How many frames of each type came."""
        received = (event["data"] for event in self.events() if event["name"] == "transport:packet_received")
        return Counter(frame["frame_type"] for packet in received for frame in packet["frames"])

    def events(self):
        return self.log.to_dict()["traces"][0]["events"]

    def identity(self):
        """The SPIFFE ID in the gateway's certificate, which its root has issued."""
        certificate = self.quic.tls._peer_certificate
        with open(self.args.root, "rb") as file:
            root = x509.load_pem_x509_certificate(file.read())
        certificate.verify_directly_issued_by(root)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
