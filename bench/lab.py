"""What the scripts in this folder share: starting servers, asking them, reading what processes have used."""

import datetime
import json
import os
import pathlib
import platform
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

BENCH = pathlib.Path(__file__).resolve().parent
ROOT = BENCH.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def say(text):
    print(f"[{datetime.datetime.now():%H:%M:%S}] {text}", flush=True)


def free_port_base(count=4):
    """A port whose neighbours are free too: a broker also listens beside its port."""
    for base in range(20000 + os.getpid() % 5000, 60000, 7):
        sockets = []
        try:
            for port in range(base, base + count):
                listener = socket.socket()
                sockets.append(listener)
                listener.bind(("0.0.0.0", port))
            return base
        except OSError:
            continue
        finally:
            for listener in sockets:
                listener.close()
    sys.exit("compare: no free ports")


def call(port, code, ext, body=b"", timeout=1.0):
    """One request to a broker or name server: response code and body, or None when there is no answer."""
    header = json.dumps({"code": code, "extFields": ext, "flag": 0, "language": "JAVA", "opaque": 1,
                         "serializeTypeCurrentRPC": "JSON", "version": 513}).encode()
    frame = struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(frame)
            stream = connection.makefile("rb")
            length, header_length = struct.unpack(">II", stream.read(8))
            reply = stream.read(length - 4)
            header_length &= 0xFFFFFF
            return json.loads(reply[:header_length]).get("code"), reply[header_length:]
    except (OSError, struct.error, ValueError):
        return None


def is_accepting(port):
    """Sends one message to the broker, which creates its topic; True when it was accepted."""
    ext = {"a": "compare", "b": "compare-start", "c": "TBW102", "d": "4", "e": "0", "f": "0",
           "g": str(int(time.time() * 1000)), "h": "0", "i": "", "j": "0", "k": "false", "m": "false"}
    answer = call(port, 310, ext, b"first")
    return answer is not None and answer[0] == 0


def is_registered(port, broker_port):
    """True when the name server knows the broker."""
    answer = call(port, 106, {})
    return answer is not None and answer[0] == 0 and f":{broker_port}\"".encode() in answer[1]


def wait_for(what, condition, is_alive=lambda: True, timeout_s=120, step_s=0.005):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if not is_alive() or time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(step_s)


def busy_seconds():
    """CPU time all processes of the machine have used so far."""
    fields = open("/proc/stat").readline().split()[1:]
    user, nice, system, _idle, _wait, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def kernel_threads_seconds():
    """CPU time of the kernel's own threads: they complete the server's writes, and disturb nothing else."""
    ticks = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # It has ended meanwhile.
        if fields[1] == "2":
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def resident_mb(pid, field="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


class Server:
    """A name server and a broker on free ports, with their files in a folder of their own."""

    settle_s = 5

    def __init__(self, options, folder, is_sync=False, properties=(), flags=()):
        """`properties` are lines of its broker.conf; `flags` are for RingMQ only."""
        self.options, self.folder = options, folder
        self.flush = "SYNC_FLUSH" if is_sync else "ASYNC_FLUSH"
        self.properties, self.flags = [f"flushDiskType={self.flush}", *properties], flags
        base = free_port_base(5)
        self.namesrv_port, self.broker_port = base, base + 3  # also used: broker - 2 and broker + 1
        self.processes, self.commands, self.start_s, self.broker = [], [], None, None
        folder.mkdir(parents=True)

    def spawn(self, name, command, **environment):
        say(f"{self.title}: starting {name}")
        self.commands.append(shlex.join(map(str, command)))
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, cwd=self.folder, env={**os.environ, **environment})
        self.processes.append(process)
        return process

    def start(self):
        """Starts everything; the broker's start counts until its first accepted send."""
        begin = self.start_processes()
        wait_for(f"{self.title} does not accept messages", lambda: is_accepting(self.broker_port), self.is_alive)
        self.start_s = time.monotonic() - begin
        wait_for(f"{self.title} does not register at its name server", lambda: is_registered(self.namesrv_port, self.broker_port),
                 self.is_alive)

    def log_tail(self):
        tails = [path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(tails)

    def is_alive(self):
        return self.broker is not None and self.broker.poll() is None

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if not self.options.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


class RingMq(Server):
    """RingMQ's name server and broker in one process."""

    name, title = "ringmq", "RingMQ"

    def start_processes(self):
        config = self.folder / "broker.conf"
        config.write_text("\n".join([*self.properties, ""]))
        begin = time.monotonic()
        self.broker = self.spawn("rmq", [
            self.options.rmq, "standalone", "--store", self.folder / "store",
            "--listen", f"127.0.0.1:{self.broker_port}", "--namesrv-port", self.namesrv_port, "-c", config, *self.flags])
        return begin


def end(server, by):
    """Ends the broker with a signal and waits for it, its store left for the next start. Seconds it took."""
    begin = time.monotonic()
    server.broker.send_signal(by)
    server.broker.wait(60)
    server.processes.remove(server.broker)
    return time.monotonic() - begin


class Bench:
    """Runs `rmq-bench` against a server and reads its result."""

    def __init__(self, options, server):
        self.options, self.server = options, server

    def command(self, work, arguments, out):
        return list(map(str, [self.options.bench, work, "-n", f"127.0.0.1:{self.server.namesrv_port}", "--json", out,
                              "--server-pid", self.server.broker.pid, *arguments]))

    def run(self, work, *arguments):
        out = self.server.folder / "result.json"
        out.unlink(missing_ok=True)
        done = subprocess.run(self.command(work, arguments, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
        if done.returncode == 2 or not out.exists():
            raise RuntimeError(f"rmq-bench {work} failed: {done.stdout.strip()}\n{self.server.log_tail()}")
        return json.loads(out.read_text())


def tools(parser):
    """The options every script has."""
    parser.add_argument("--rmq", default=TARGET / "release" / "rmq", type=pathlib.Path)
    parser.add_argument("--bench", default=TARGET / "release" / "rmq-bench", type=pathlib.Path)
    parser.add_argument("--results", default=BENCH / "results", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true", help="keep stores and logs")


def first_line(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        return (done.stdout.strip().splitlines() or [""])[0]
    except OSError:
        return "not installed"


def machine(options):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1])
    filesystem = first_line(["findmnt", "-no", "SOURCE,FSTYPE", "-T", str(options.folder)])
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / 2**20, 1), "kernel": platform.release(),
            "filesystem": filesystem, "java": first_line(["java", "-version"]),
            "load_average_at_start": round(os.getloadavg()[0], 2),
            "commit": first_line(["git", "describe", "--always", "--dirty"])}
