"""The systems that are compared: how each is configured, started and reached.

All three carry plain TCP to their second half over mutually authenticated TLS 1.3 with AES-128-GCM and P-256
certificates, and use one thread or process for each core. Access logs are off in all of them. Beyond that they run
with their defaults, except where a comment says otherwise.
"""

import os
import resource
import time

from .lab import A_FAR_IP, A_NEAR_IP, B_NEAR_IP, SERVER_IP, CannotMeasure, output, tool

# What runs in the server's namespace, and its port.
SERVICES = {"bulk": 5201, "web": 8080, "echo": 7007}
# Connections held open at once, with room above.
CONNECTIONS_MAX = 9500


class System:
    """One of the things compared."""

    key = title = ""
    # On gateway A; services follow in their order.
    near_port = 0

    def __init__(self, folder):
        self.folder = os.path.join(folder, self.key)
        self.processes = {}

    def near(self, service):
        """The port on gateway A at which the client reaches `service`."""
        return self.near_port + list(SERVICES).index(service)

    def address(self, service):
        """Where the client connects to."""
        return A_NEAR_IP, self.near(service)

    def files(self):
        """Name to text of every configuration file, all below the folder."""
        return {}

    def write(self):
        os.makedirs(self.folder, exist_ok=True)
        for name, text in self.files().items():
            with open(os.path.join(self.folder, name), "w") as file:
                file.write(text)

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, lab):
        self.write()
        for side in ("b", "a"):
            self.processes[side] = lab.start(side, f"{self.key}-{side}", self.command(side))
        for service in SERVICES:
            lab.wait_for_port("a", self.near(service))

    def command(self, side):
        raise NotImplementedError

    def stop(self):
        for process in reversed(self.processes.values()):
            process.stop()
        self.processes = {}

    def must_work(self, lab, seconds=10):
        """Until bytes come back from the far end."""
        host, port = self.address("echo")
        end = time.monotonic() + seconds
        while True:
            done = lab.run("client", lab.sockets("probe", host, port), 10)
            if done and done.returncode == 0:
                return
            for process in self.processes.values():
                process.must_run()
            if time.monotonic() > end:
                tails = "\n".join(f"{process.name}:\n{process.tail()}" for process in self.processes.values())
                raise CannotMeasure(f"nothing comes back through {self.title}\n{tails}")
            time.sleep(0.1)


class Direct(System):
    """The kernel forwards; nobody encrypts. What is possible on this path."""

    key, title = "direct", "direct"

    def address(self, service):
        return SERVER_IP, SERVICES[service]

    def start(self, lab):
        pass


class Corinth(System):
    """Ours."""

    key, title, near_port = "corinth", "Corinth", 7100

    def __init__(self, folder, gateway):
        super().__init__(folder)
        self.gateway = gateway

    def files(self):
        return {"a.yaml": self.near_config(), "b.yaml": self.far_config()}

    def common(self, cluster, tunnel):
        return f"""cluster: {cluster}
stateDir: {cluster}
listen:
  tunnel: {tunnel}:11443
  admin: 127.0.0.1:11500
  imports: [{A_NEAR_IP}]
  importPorts: 7100-7199
# Nobody else is here who would have to notice.
drain: {{delay: 1ms, limit: 1s}}
# The others do not write one either.
accessLog: {{target: off}}
log: {{level: warn}}
"""

    def near_config(self, linked=True):
        text = self.common("east", A_FAR_IP)
        if not linked:
            return text
        text += f"""peers:
  - name: west
    bundle: west/bundle.pem
    addresses: ["{B_NEAR_IP}:11443"]
imports:
"""
        for service, port in SERVICES.items():
            text += f"  - {{service: {service}.perf, port: {port}, importPort: {self.near(service)}, from: [west]}}\n"
        return text

    def far_config(self, linked=True):
        text = self.common("west", B_NEAR_IP).replace(f"  imports: [{A_NEAR_IP}]\n  importPorts: 7100-7199\n", "")
        if not linked:
            return text
        text += """peers:
  - {name: east, bundle: east/bundle.pem, acceptOnly: true}
exports:
"""
        for service, port in SERVICES.items():
            endpoint = f"{SERVER_IP}:{port}"
            text += f'  - {{service: {service}.perf, port: {port}, endpoints: ["{endpoint}"], to: [east]}}\n'
        return text

    def command(self, side):
        return [self.gateway, "--config", self.path(f"{side}.yaml")]

    def start(self, lab):
        os.makedirs(self.folder, exist_ok=True)
        if not os.path.exists(self.path("west/bundle.pem")):
            self.make_bundles(lab)
        self.write()
        for side in ("b", "a"):
            self.processes[side] = lab.start(side, f"corinth-{side}", self.command(side))
            self.processes[side].wait_for_line("READY=1", 10)

    def make_bundles(self, lab):
        """A node makes its roots on first start; only then can they be given to the other."""
        for side, text in (("a", self.near_config(linked=False)), ("b", self.far_config(linked=False))):
            with open(self.path(f"{side}.yaml"), "w") as file:
                file.write(text)
            process = lab.start(side, f"corinth-{side}-first", self.command(side))
            process.wait_for_line("READY=1", 10)
            process.stop()


class Peer(System):
    """Somebody else's proxy, twice: plain to mTLS, mTLS to plain."""

    # On gateway B; services follow in their order.
    far_port = 0

    def far(self, service):
        return self.far_port + list(SERVICES).index(service)

    def start(self, lab):
        os.makedirs(self.folder, exist_ok=True)
        make_certificates(self.folder)
        super().start(lab)
        for service in SERVICES:
            lab.wait_for_port("b", self.far(service))


class Haproxy(Peer):
    """HAProxy in TCP mode. Its TLS client resumes sessions, which is its default."""

    key, title, near_port, far_port = "haproxy", "HAProxy", 7200, 8200

    COMMON = f"""global
    # Threads: one for each core is the default.
    maxconn {CONNECTIONS_MAX}
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-server-options ssl-min-ver TLSv1.3
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
    mode tcp
    maxconn {CONNECTIONS_MAX}
    backlog 4096
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""

    def files(self):
        near = far = self.COMMON
        for service, port in SERVICES.items():
            near += f"""listen {service}
    bind {A_NEAR_IP}:{self.near(service)}
    server b {B_NEAR_IP}:{self.far(service)} ssl verify required ca-file {self.path("ca.pem")} \
crt {self.path("a.both.pem")} sni str(b.perf.internal) verifyhost b.perf.internal
"""
            far += f"""listen {service}
    bind {B_NEAR_IP}:{self.far(service)} ssl crt {self.path("b.both.pem")} \
ca-file {self.path("ca.pem")} verify required
    server app {SERVER_IP}:{port}
"""
        return {"a.cfg": near, "b.cfg": far}

    def command(self, side):
        return [tool("haproxy"), "-db", "-f", self.path(f"{side}.cfg")]


class Nginx(Peer):
    """nginx with the stream module. Its TLS client resumes sessions, which is its default."""

    key, title, near_port, far_port = "nginx", "nginx stream", 7300, 8300

    def common(self, side):
        return f"""{stream_module()}worker_processes auto;
worker_rlimit_nofile {descriptors()};
user root;
pid {self.path(side)}.pid;
error_log stderr error;
events {{ worker_connections {2 * CONNECTIONS_MAX}; }}
stream {{
    proxy_timeout 1h;
    proxy_connect_timeout 5s;
"""

    def files(self):
        near, far = self.common("a"), self.common("b")
        near += f"""    proxy_ssl on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    proxy_ssl_certificate {self.path("a.pem")};
    proxy_ssl_certificate_key {self.path("a.key")};
    proxy_ssl_trusted_certificate {self.path("ca.pem")};
    proxy_ssl_verify on;
    proxy_ssl_server_name on;
    proxy_ssl_name b.perf.internal;
"""
        far += f"""    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_certificate {self.path("b.pem")};
    ssl_certificate_key {self.path("b.key")};
    ssl_client_certificate {self.path("ca.pem")};
    ssl_verify_client on;
"""
        for service, port in SERVICES.items():
            near += f"""    server {{
        listen {A_NEAR_IP}:{self.near(service)} reuseport backlog=4096;
        proxy_pass {B_NEAR_IP}:{self.far(service)};
    }}
"""
            far += f"""    server {{
        listen {B_NEAR_IP}:{self.far(service)} ssl reuseport backlog=4096;
        proxy_pass {SERVER_IP}:{port};
    }}
"""
        return {"a.conf": near + "}\n", "b.conf": far + "}\n"}

    def command(self, side):
        return nginx_command(self.folder, f"{side}.conf")


class Server:
    """What runs in the server's namespace: iperf3, nginx with a tiny answer, and an echo."""

    WEB = """worker_processes auto;
worker_rlimit_nofile {descriptors};
user root;
pid {folder}/web.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    server {{
        listen {address}:{port} reuseport backlog=4096;
        location / {{ return 200 "ok\\n"; }}
    }}
}}
"""

    def __init__(self, folder):
        self.folder = os.path.join(folder, "server")
        self.iperf = None

    def files(self):
        text = self.WEB.format(
            folder=self.folder, address=SERVER_IP, port=SERVICES["web"], descriptors=descriptors()
        )
        return {"web.conf": text}

    def start(self, lab, life):
        os.makedirs(self.folder, exist_ok=True)
        for name, text in self.files().items():
            with open(os.path.join(self.folder, name), "w") as file:
                file.write(text)
        lab.start("server", "web", nginx_command(self.folder, "web.conf"))
        lab.start_tool("server", "echo", "echo", SERVICES["echo"], life)
        self.restart_iperf(lab)
        for port in SERVICES.values():
            lab.wait_for_port("server", port)

    def restart_iperf(self, lab):
        """A client that was cut off leaves the server busy."""
        if self.iperf:
            self.iperf.stop()
        self.iperf = lab.start("server", "iperf3", ["iperf3", "-s", "-p", str(SERVICES["bulk"])])
        lab.wait_for_port("server", SERVICES["bulk"])


def nginx_command(folder, config):
    return [
        tool("nginx"), "-e", "stderr", "-p", folder, "-c", os.path.join(folder, config), "-g", "daemon off;",
    ]


def stream_module():
    """What loads the stream module, where it is not built in."""
    for folder in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"):
        path = os.path.join(folder, "ngx_stream_module.so")
        if os.path.exists(path):
            return f"load_module {path};\n"
    return ""


def descriptors():
    """As many descriptors as any process here may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def make_certificates(folder):
    """A CA and one certificate for each gateway, P-256, as files that both proxies read."""
    if os.path.exists(os.path.join(folder, "ca.pem")):
        return

    def path(name):
        return os.path.join(folder, name)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
    output("openssl", "req", "-x509", *curve, "-keyout", path("ca.key"), "-out", path("ca.pem"), "-subj", "/CN=perf CA")
    for side in ("a", "b"):
        name = f"{side}.perf.internal"
        output(
            "openssl", "req", "-x509", *curve, "-CA", path("ca.pem"), "-CAkey", path("ca.key"),
            "-keyout", path(f"{side}.key"), "-out", path(f"{side}.pem"), "-subj", f"/CN={name}",
            "-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:false",
            "-addext", "extendedKeyUsage=serverAuth,clientAuth",
        )
        with open(path(f"{side}.both.pem"), "w") as both:
            for part in (f"{side}.pem", f"{side}.key"):
                with open(path(part)) as file:
                    both.write(file.read())
