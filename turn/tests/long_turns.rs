//! What an operator reads in the log about turns that take long.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rmq_turn::{App, Completion, Core, run};
use rustix::time::{ClockId, clock_gettime};

/// What a core does in one turn.
type Task = fn();

/// Carries out one task per turn, at the turn's end, and then finishes.
struct Tasks(Vec<Task>);

impl App for Tasks {
    type Letter = ();

    fn on_completion(&mut self, _: &mut Core<()>, completion: Completion) {
        panic!("no operation was submitted: {completion:?}");
    }

    fn on_letter(&mut self, _: &mut Core<()>, _: usize, (): ()) {}

    fn on_turn_end(&mut self, _: &mut Core<()>) {
        if let Some(task) = self.0.pop() {
            task();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(1))
    }

    fn waited_for_by(&self) -> rmq_turn::Waiting {
        rmq_turn::Waiting::Nobody
    }

    fn is_finished(&self) -> bool {
        self.0.is_empty()
    }

    fn name_of(_: u8) -> &'static str {
        "nothing"
    }
}

/// Uses the processor for this long, however often the host takes it away meanwhile.
fn burn(time: Duration) {
    let used = || clock_gettime(ClockId::ThreadCPUTime);
    let begin = used();
    loop {
        let now = used();
        let nanoseconds = (now.tv_sec - begin.tv_sec) * 1_000_000_000 + now.tv_nsec - begin.tv_nsec;
        if nanoseconds as u128 >= time.as_nanos() {
            return;
        }
    }
}

/// Where the log of this process goes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The process has one log, so that the tests take turns.
fn log() -> (Lines, MutexGuard<'static, ()>) {
    static LOG: OnceLock<Lines> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = LOG.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        lines
    });
    (lines.clone(), alone)
}

/// Runs a core that does these tasks, one per turn, and returns the lines logged meanwhile.
fn lines_of(tasks: &[Task]) -> Vec<String> {
    let (lines, _alone) = log();
    let tasks = tasks.to_vec();
    run(1, |_| (), move |_: &mut Core<()>| Ok(Tasks(tasks.clone()))).unwrap();
    let bytes = std::mem::take(&mut *lines.0.lock().unwrap_or_else(PoisonError::into_inner));
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn long_turns_are_told_once_with_what_took_long() {
    // The last one is carried out first.
    let lines = lines_of(&[|| (), || burn(Duration::from_millis(60)), || burn(Duration::from_millis(60))]);
    let [line] = &lines[..] else { panic!("one line in ten seconds: {lines:?}") };
    assert!(line.contains("WARN") && line.contains("core=0"), "{line}");
    assert!(line.contains("a turn took long"), "{line}");
    assert!(line.contains(r#"longest="the end of the turn""#), "{line}");
}

#[test]
fn a_turn_that_was_blocked_is_not_taken_for_work() {
    let lines = lines_of(&[|| (), || std::thread::sleep(Duration::from_millis(200))]);
    let [line] = &lines[..] else { panic!("one line: {lines:?}") };
    assert!(line.contains("its thread waited inside the kernel"), "{line}");
}

#[test]
fn short_turns_are_not_told() {
    let short: Task = || burn(Duration::from_millis(2));
    let lines = lines_of(&[short; 50]);
    // A host that takes the processor away makes any turn long; the line then says that it was the host.
    assert!(lines.iter().all(|line| line.contains("the host did not run this thread")), "{lines:?}");
}

#[test]
fn a_stuck_core_is_told_while_it_is_stuck() {
    let lines = lines_of(&[|| (), || burn(Duration::from_secs(2))]);
    // Where the host runs other things too, two seconds of work take longer, and the error is repeated.
    let line = lines.iter().find(|line| line.contains("ERROR"));
    let line = line.unwrap_or_else(|| panic!("an error of the watching thread: {lines:?}"));
    assert!(line.contains("a core is stuck in one turn") && line.contains("core=0"), "{line}");
    assert!(line.contains(r#"doing="the end of the turn""#), "{line}");
}
