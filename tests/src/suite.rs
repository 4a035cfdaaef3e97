use std::path::{Path, PathBuf};
use std::process::Command;

use crate::folder::Folder;
use crate::process::{Process, is_installed};
use crate::skip;

/// What Apache's servers need on a Java of this decade.
const APACHE_OPENS: [&str; 3] = [
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
];
/// Scenarios are short: compile quickly rather than well.
const JAVA_SHORT_LIVED: [&str; 3] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"];

/// A release of the Java client the scenarios are compiled against.
#[derive(Clone, Copy, Debug)]
pub enum JavaClient {
    V5_5_0,
    V4_9_8,
}

impl JavaClient {
    fn module(self) -> &'static str {
        match self {
            Self::V5_5_0 => "client-5.5.0",
            Self::V4_9_8 => "client-4.9.8",
        }
    }
}

/// The scenarios of one stock client.
#[derive(Clone, Copy, Debug)]
pub enum Suite {
    Java(JavaClient),
    Go,
    Node,
}

impl Suite {
    /// Why this suite cannot run here, if it cannot.
    fn missing(self) -> Option<String> {
        let (program, built) = match self {
            Self::Java(client) => ("java", root().join("java").join(client.module()).join("target/lib")),
            Self::Go => ("go", root().join("go/bin/scenarios")),
            Self::Node => ("node", root().join("node/node_modules/ali-ons")),
        };
        if !is_installed(program) {
            return Some(format!("{program} is not installed"));
        }
        (!built.exists()).then(|| format!("{} is missing: run tests/run --prepare", built.display()))
    }

    /// Says so, or fails in CI, when this suite cannot run here.
    pub fn is_available(self) -> bool {
        let missing = self.missing();
        if let Some(reason) = &missing {
            skip(reason);
        }
        missing.is_none()
    }

    fn command(self, namesrv: &str, home: &Path) -> Command {
        match self {
            Self::Java(client) => {
                let mut command = java_command(client, home);
                command.arg(format!("-Dnamesrv={namesrv}"));
                command.arg("ringmq.clients.Scenarios");
                command
            }
            Self::Go => {
                let mut command = Command::new(root().join("go/bin/scenarios"));
                command.env("ROCKETMQ_GO_LOG_LEVEL", "error").env("HOME", home).args(["-namesrv", namesrv]);
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(root().join("node/scenarios.js")).env("NAMESRV", namesrv).env("HOME", home);
                command
            }
        }
    }

    /// Runs one scenario against the cluster of a name server, and fails with the scenario's output if it does.
    /// `namesrv` is asked for its address only when the suite can run.
    pub fn run(self, scenario: &str, namesrv: impl FnOnce() -> String) {
        if !self.is_available() {
            return;
        }
        let home = Folder::new();
        let mut command = self.command(&namesrv(), home.path());
        command.arg(scenario);
        let (code, output) = run(scenario, home.path(), &command);
        assert!(code == 0, "{scenario} of {self:?} ended with {code}:\n{output}");
    }

    /// The names of all scenarios the suite has, sorted.
    pub fn scenarios(self) -> Vec<String> {
        let home = Folder::new();
        let (code, output) = run("names", home.path(), &self.command("", home.path()));
        assert!(code == 0, "{self:?} does not list its scenarios:\n{output}");
        let mut names: Vec<String> = output.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

/// Runs a command to its end; returns its exit code and what it printed.
fn run(name: &str, folder: &Path, command: &Command) -> (i32, String) {
    let mut process = Process::start(name, folder, command);
    let code = process.exit_code();
    (code, process.log_text())
}

/// `java` with a client and the scenarios on its class path, and everything it writes under `home`. Add properties
/// and the main class.
pub fn java_command(client: JavaClient, home: &Path) -> Command {
    let target = root().join("java").join(client.module()).join("target");
    let mut command = Command::new("java");
    command.args(JAVA_SHORT_LIVED).arg(format!("-Duser.home={}", home.display()));
    command.arg("-cp").arg(format!("{0}/classes:{0}/lib/*", target.display()));
    command
}

/// `java` with one of Apache's servers; add its arguments.
pub(crate) fn apache_command(main_class: &str, home: &Path, heap: &str) -> Command {
    let library = root().join("java/apache/target/lib");
    assert!(library.exists(), "{} is missing: run tests/run --prepare", library.display());
    let mut command = Command::new("java");
    command.args(APACHE_OPENS).args([
        "-XX:+UseSerialGC",
        &format!("-Xms{heap}"),
        &format!("-Xmx{heap}"),
        "-XX:MaxDirectMemorySize=4g",
    ]);
    command.arg(format!("-Duser.home={}", home.display())).arg(format!("-Drocketmq.home.dir={}", home.display()));
    command.arg("-cp").arg(format!("{}/*", library.display())).arg(main_class);
    command
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
