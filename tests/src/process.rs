use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Runs the command line "$@" with its output in $LOG, says its process id, and kills it when the leash (our stdin)
/// ends. Until then an ended process stays a zombie, so its id cannot come to belong to somebody else.
const LEASH: &str = r#"
"$@" < /dev/null > "$LOG" 2>&1 &
echo $!
cat > /dev/null
kill -KILL $! 2> /dev/null
wait $!
"#;

/// Removes the folder $1 at the end of the leash. When the whole test process ends, servers that still write there end
/// at the same time: once more, a little later, for at most ten seconds.
const REMOVER: &str = r#"
echo $$
cat > /dev/null
for attempt in $(seq 100); do rm -rf "$1" && break; sleep 0.1; done
"#;

/// Unmounts the folder $1 at the end of the leash, if it is mounted still; users that end a little later are no obstacle.
/// Signals to the whole process group, such as Ctrl-C, do not stop it: a volume without its server would stay.
const UNMOUNTER: &str = r#"
trap '' INT TERM
echo $$
cat > /dev/null
umount -l "$1" || fusermount3 -uz "$1"
"#;

/// How long anything a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// What of a log a failed test shows.
const LOG_TAIL_CHARS: usize = 6_000;

/// A child process that ends with the test: when this is dropped, and also when the test process is killed.
#[derive(Debug)]
pub struct Process {
    leash: Child,
    pid: Pid,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output going to `<folder>/<name>.log`. The command's arguments, environment and
    /// current folder count; its own standard streams do not.
    pub fn start(name: &str, folder: &Path, command: &Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let mut leash = Command::new("sh");
        leash.args(["-c", LEASH, "leash"]).arg(command.get_program()).args(command.get_args()).env("LOG", &log);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => leash.env(key, value),
                None => leash.env_remove(key),
            };
        }
        if let Some(current) = command.get_current_dir() {
            leash.current_dir(current);
        }
        Self::on_leash(leash, name, log)
    }

    /// Removes a folder with all it holds, at the end of the leash.
    pub(crate) fn remover(folder: &Path) -> Self {
        let mut leash = Command::new("sh");
        leash.args(["-c", REMOVER, "leash"]).arg(folder);
        Self::on_leash(leash, "remover", PathBuf::new())
    }

    /// Unmounts a folder at the end of the leash, unless that has been done by then.
    pub fn unmounter(folder: &Path) -> Self {
        let mut leash = Command::new("sh");
        leash.args(["-c", UNMOUNTER, "leash"]).arg(folder);
        Self::on_leash(leash, "unmounter", PathBuf::new())
    }

    fn on_leash(mut leash: Command, name: &str, log: PathBuf) -> Self {
        let mut leash = leash
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: sh does not start: {error}"));
        let mut said = String::new();
        let stdout = leash.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut said).expect("the leash says the process id");
        let pid = said.trim().parse().ok().and_then(Pid::from_raw);
        Self { leash, pid: pid.expect("a process id"), name: name.to_owned(), log }
    }

    pub fn log_text(&self) -> String {
        // A log of bytes that are no UTF-8 is still worth reading.
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether the process ended, by itself or by a signal.
    pub fn is_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero())).unwrap_or_default();
        // "pid (name) state ...", where the name may hold anything, parentheses too.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill_hard(&self) {
        self.signal(Signal::KILL);
        self.await_end();
    }

    /// SIGTERM, and waits until the process is gone.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
        self.await_end();
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Bytes of memory the process has resident now.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a running process has VmRSS") * 1024
    }

    /// Files and sockets the process has open now.
    pub fn open_file_count(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid.as_raw_nonzero())).map_or(0, Iterator::count)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("{}: {signal:?}: {error}", self.name));
    }

    fn await_end(&self) {
        await_condition(&format!("the end of {}", self.name), || self.is_ended());
    }

    /// Waits until `holds`, and fails with the log when the process ends before.
    pub fn await_ready(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            let ended = self.is_ended();
            assert!(
                !ended && Instant::now() < deadline,
                "{}: {} {what}; its log:\n{}",
                self.name,
                if ended { "ended before" } else { "no" },
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the process ends by itself and returns its exit code; a signal counts as 128 and its number.
    pub fn exit_code(&mut self) -> i32 {
        self.await_end();
        drop(self.leash.stdin.take());
        self.leash.wait().ok().and_then(|status| status.code()).unwrap_or(-1)
    }

    /// The end of the log, for the message of a failed test.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let start = text.char_indices().rev().nth(LOG_TAIL_CHARS).map_or(0, |(start, _)| start);
        text[start..].to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.leash.stdin.take());
        // The leash kills the process and ends; there is nothing left to do about a failure here.
        let _ = self.leash.wait();
    }
}

/// Waits, by looking again and again, until `holds`.
pub fn await_condition(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a program of this name is on the PATH.
pub(crate) fn is_installed(program: impl AsRef<OsStr>) -> bool {
    let program = program.as_ref();
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
