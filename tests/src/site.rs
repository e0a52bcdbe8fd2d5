//! Hosts with our packages, installed from our repository as a user would: a control plane, and a mesh of two hosts.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::{binaries, machine::Machine, netns::Field, process::Process, scratch::Scratch, wait::until};

/// How long the mesh may take to do what it does by itself.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Where the repositories are served.
const REPOSITORY: u16 = 8_000;

/// Hosts that know each other by name, and our repository.
///
/// # Panics
/// If one does not come up.
pub async fn boot(field: &Field, scratch: &Scratch, names: &[&str]) -> Vec<Machine> {
    let mut machines = Vec::new();
    for (number, name) in (1..).zip(names) {
        let machine = Machine::boot(field, scratch.path(), number, name).await.expect("a host");
        let known: String =
            (1..).zip(names).map(|(n, name)| format!("{} {name}\n", field.address(n))).collect();
        machine.write("/etc/hosts", format!("127.0.0.1 localhost\n{known}"));
        let from = format!("http://{}:{REPOSITORY}", field.address(0));
        machine.fine(&format!(
            "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* && mkdir -p /etc/apt/keyrings \
             && curl -fsS {from}/apt/mesh.asc > /etc/apt/keyrings/mesh.asc"
        ));
        let list = format!("deb [signed-by=/etc/apt/keyrings/mesh.asc] {from}/apt stable main\n");
        machine.write("/etc/apt/sources.list.d/mesh.list", &list);
        machine.fine("apt-get update -q");
        machines.push(machine);
    }
    machines
}

/// Serves what `cargo xtask dist` made.
///
/// # Panics
/// If it made nothing.
pub fn serve(scratch: &Scratch) -> Process {
    let dist = binaries::target().join("dist");
    assert!(dist.join("apt/dists/stable/InRelease").exists(), "cargo xtask dist --profile dev");
    let mut server = Command::new("python3");
    server.args(["-m", "http.server", "--directory"]).arg(dist).arg(REPOSITORY.to_string());
    Process::spawn("repository", scratch.path(), server.stdin(Stdio::null())).expect("python3")
}

/// Answers after up to 300 ms on 8081, where it says back the frames of a WebSocket, too, and echoes on 8082; at every
/// address, so that nothing but the mesh keeps callers from outside away.
const APPLICATIONS: &str = "import base64, hashlib, http.server, random, socketserver, threading, time
class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def websocket(self):
        key = self.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101)
        self.send_header('upgrade', 'websocket')
        self.send_header('connection', 'Upgrade')
        self.send_header('sec-websocket-accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2:
            mask = self.rfile.read(4)
            said = bytes(byte ^ mask[n % 4] for n, byte in enumerate(self.rfile.read(head[1] & 127)))
            self.wfile.write(bytes([0x81, len(said)]) + said)
    def do_GET(self):
        if self.headers.get('upgrade') == 'websocket':
            return self.websocket()
        time.sleep(random.choice([0, 0, 0, 0.3]))
        self.send_response(200)
        self.send_header('content-length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
    def log_message(self, *a):
        pass
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
threading.Thread(target=Tcp(('', 8082), Echo).serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer.request_queue_size = 256
http.server.ThreadingHTTPServer(('', 8081), Http).serve_forever()
";
const APPLICATIONS_UNIT: &str = "[Service]
ExecStart=/usr/bin/python3 /srv/applications.py
[Install]
WantedBy=multi-user.target
";
const ORDERS: &str = "[service]
name = \"orders\"
port = 8081
service_port = 80
protocol = \"http\"
[service.check]
http = \"/\"
";
const ECHO: &str = "[service]
name = \"echo\"
port = 8082
protocol = \"tcp\"
";
const WEB: &str = "[service]
name = \"web\"
[[upstream]]
service = \"orders\"
listen = \"127.0.0.1:9001\"
[[upstream]]
service = \"echo\"
listen = \"127.0.0.1:9002\"
";

/// Makes a cluster on `cp`; `. /srv/admin` lets meshctl work there.
///
/// # Panics
/// If it cannot be made.
pub fn found(cp: &Machine) {
    let said = cp.fine("apt-get install -y -q meshd meshctl && meshd init");
    let exports = said.lines().map(str::trim).filter(|line| line.starts_with("export "));
    cp.write("/srv/admin", exports.fold(String::new(), |all, line| all + line + "\n"));
}

/// A control plane and two hosts, of which one calls the other.
///
/// # Panics
/// If it does not come about.
pub async fn mesh(field: &Field, scratch: &Scratch) -> [Machine; 3] {
    let machines = boot(field, scratch, &["cp1", "host-a", "host-b"]).await;
    let [cp, a, b] = <[Machine; 3]>::try_from(machines).expect("three hosts");
    found(&cp);
    b.write("/srv/applications.py", APPLICATIONS);
    b.write("/etc/systemd/system/applications.service", APPLICATIONS_UNIT);
    b.fine("systemctl enable -q --now applications");
    for (machine, services) in [
        (&a, "--service default/web --service default/early --service default/late"),
        (&b, "--service default/orders --service default/echo --service default/shell"),
    ] {
        let name = machine.name();
        let token = cp.fine(&format!(". /srv/admin; meshctl token join {name} --node {name} {services}"));
        machine.fine(&format!(
            "apt-get install -y -q mesh-proxy && mesh-proxy join https://cp1:8443 --token {token}"
        ));
    }
    a.write("/etc/mesh/services.d/web.toml", WEB);
    b.write("/etc/mesh/services.d/orders.toml", ORDERS);
    b.write("/etc/mesh/services.d/echo.toml", ECHO);
    for machine in [&a, &b] {
        machine.fine("systemctl reload mesh-proxy");
    }
    until_works(&a).await;
    [cp, a, b]
}

/// Waits until the calling host reaches both services of the other one.
///
/// # Panics
/// If it does not.
pub async fn until_works(a: &Machine) {
    let works = || async {
        let said = a.run("curl -sS --fail http://127.0.0.1:9001/ && echo hi | nc -N 127.0.0.1 9002");
        if said.out == "okhi\n" { Ok(()) } else { Err(format!("{}{}", said.out, said.err)) }
    };
    until("both services answer", PATIENCE, works).await.expect("a mesh");
}
