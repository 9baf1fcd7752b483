//! The parent's side: a child process a group, watched. A child that dies, hangs or loses its device names the case that it was at; the rest of the group goes on in
//! another child.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::child::{LOST, Line};
use super::report::{Record, Report, Status};
use super::{Selection, Tier};

/// A group, and the places and ids of its cases that are asked for.
type Chosen<'c> = (&'c str, Vec<(usize, &'c str)>);

/// How children are started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable: this one.
    pub executable: std::path::PathBuf,
    /// What comes before `child` on its command line.
    pub prefix: Vec<String>,
}

/// What to run.
pub struct Job<'a> {
    /// How children are started.
    pub program: &'a Program,
    /// The backend's name.
    pub backend: String,
    /// Group, place in it and id of each case that is asked for, in order.
    pub cases: Vec<(&'static str, usize, String)>,
    /// Which they are.
    pub selection: Selection,
    /// Failures that are known: a pattern as of a filter, and why.
    pub expected: Vec<(String, String)>,
    /// How long a case may take.
    pub timeout: Duration,
}

impl Job<'_> {
    /// Runs all; `progress` is told of each case as it ends.
    ///
    /// # Errors
    /// Children that cannot be started; a device that does not open, in its own words.
    pub fn run(&self, mut progress: impl FnMut(&Record)) -> Result<Report, String> {
        let begin = Instant::now();
        let mut groups: BTreeMap<usize, Chosen<'_>> = BTreeMap::new();
        let mut order = Vec::new();
        for (group, index, id) in &self.cases {
            let place = order.iter().position(|name| name == group).unwrap_or_else(|| {
                order.push(*group);
                order.len() - 1
            });
            groups.entry(place).or_insert_with(|| (group, Vec::new())).1.push((*index, id));
        }
        let mut device = String::new();
        let mut records = Vec::new();
        for (group, cases) in groups.into_values() {
            self.group(group, &cases, &mut device, &mut |mut record| {
                self.judge(&mut record);
                progress(&record);
                records.push(record);
            })?;
        }
        let tier = if self.selection.smoke { Tier::Smoke } else { Tier::Full };
        let which = (tier, self.selection.filter.clone());
        Ok(Report::new(self.backend.clone(), device, which, begin.elapsed().as_secs_f64(), records))
    }

    /// What is known to fail is no failure, and what is known to and does not is one.
    fn judge(&self, record: &mut Record) {
        let Some((_, why)) = self.expected.iter().find(|(pattern, _)| super::matches(pattern, &record.id))
        else {
            return;
        };
        match record.status {
            Status::Fail => {
                record.status = Status::ExpectedFail;
                let found = record.reason.take().unwrap_or_default();
                record.reason = Some(format!("{why}: {found}"));
            }
            Status::Pass => {
                record.status = Status::UnexpectedPass;
                record.reason = Some(format!("it is listed as failing: {why}"));
            }
            _ => {}
        }
    }

    fn group(
        &self,
        group: &str,
        cases: &[(usize, &str)],
        device: &mut String,
        done: &mut dyn FnMut(Record),
    ) -> Result<(), String> {
        let mut left = cases;
        while let Some(&(from, _)) = left.first() {
            let child = Watched::start(self, group, from)?;
            let mut current: Option<(usize, String)> = None;
            let (mut began, mut last) = (false, None);
            let ended = loop {
                match child.lines.recv_timeout(self.timeout) {
                    Ok(Line::Device(name)) => *device = name,
                    Ok(Line::Begin(index, id)) => (began, current) = (true, Some((index, id))),
                    Ok(Line::End(record)) => {
                        if let Some((index, _)) = current.take() {
                            left = after(left, index);
                            // The last one counts when its child has ended well: a driver may die of closing.
                            if left.is_empty() {
                                last = Some(record);
                            } else {
                                done(*record);
                            }
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => break Ended::Silent,
                    Err(RecvTimeoutError::Disconnected) => break Ended::Gone,
                }
            };
            let (code, words) = child.finish();
            let gone = |with: u8| matches!(ended, Ended::Gone) && code == Some(i32::from(with));
            let lost = |id: String| self.lost(group, id, ended, code, &words);
            match (last, current) {
                (Some(record), _) if gone(0) || gone(LOST) => done(*record),
                (Some(record), _) => done(lost(record.id)),
                (None, Some((index, id))) => {
                    left = after(left, index);
                    done(lost(id));
                }
                // It has reported the case that lost the device.
                (None, None) if gone(LOST) => {}
                // No child of this run has opened a device: there is none, which is for the user to mend.
                (None, None) if gone(2) && device.is_empty() => return Err(words),
                // It was between two cases: the next one is named.
                (None, None) if began => {
                    done(lost(left[0].1.to_owned()));
                    left = &left[1..];
                }
                // It got as far as no case, and another would get no further.
                (None, None) => {
                    std::mem::take(&mut left).iter().for_each(|(_, id)| done(lost((*id).to_owned())))
                }
            }
        }
        Ok(())
    }

    /// The record of a case that its child did not survive.
    fn lost(&self, group: &str, id: String, ended: Ended, code: Option<i32>, words: &str) -> Record {
        let (status, reason) = match ended {
            Ended::Silent => (Status::Timeout, format!("no answer in {} s", self.timeout.as_secs_f32())),
            Ended::Gone => {
                let how = code.map_or("by a signal".into(), |code| format!("with exit code {code}"));
                (Status::Crash, format!("the process ended {how}: {}", words.trim()))
            }
        };
        Record {
            id,
            group: group.to_owned(),
            status,
            ratio: None,
            worst: None,
            nmse: None,
            spread: None,
            seconds: 0.0,
            reason: Some(reason),
        }
    }
}

/// The cases behind that place.
fn after<'c>(cases: &'c [(usize, &'c str)], index: usize) -> &'c [(usize, &'c str)] {
    let past = cases.iter().position(|(place, _)| *place > index).unwrap_or(cases.len());
    &cases[past..]
}

/// How a child's lines ended.
#[derive(Clone, Copy, Debug)]
enum Ended {
    /// None came in time.
    Silent,
    /// It closed its output.
    Gone,
}

/// A child and the threads that read what it says.
struct Watched {
    child: Child,
    lines: mpsc::Receiver<Line>,
    words: std::thread::JoinHandle<String>,
}

impl Watched {
    fn start(job: &Job<'_>, group: &str, from: usize) -> Result<Self, String> {
        let mut command = Command::new(&job.program.executable);
        command.args(&job.program.prefix).args(["child", "--backend", &job.backend, "--group", group]);
        // With `=`, since a filter may begin with a dash.
        command.args(["--from", &from.to_string(), &format!("--filter={}", job.selection.filter)]);
        if job.selection.smoke {
            command.args(["--tier", "smoke"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", job.program.executable.display()))?;
        let (sender, lines) = mpsc::channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        std::thread::spawn(move || {
            for text in out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
                // Others may print as well: a driver, a panic's message.
                if let Ok(line) = serde_json::from_str(&text)
                    && sender.send(line).is_err()
                {
                    return;
                }
            }
        });
        let words = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.map(|mut err| err.read_to_end(&mut text));
            let start = text.len().saturating_sub(600);
            String::from_utf8_lossy(&text[start..]).into_owned()
        });
        Ok(Self { child, lines, words })
    }

    /// Ends it if it has not ended; its exit code, none after a signal, and what it said last.
    fn finish(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(2);
        let code = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status.code(),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => {
                    let _ = self.child.kill();
                    break self.child.wait().ok().and_then(|status| status.code());
                }
            }
        };
        (code, self.words.join().unwrap_or_default())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A child that ends well and says nothing has run nothing: its cases are counted all the same.
    #[test]
    fn cases_do_not_vanish_with_their_child() {
        let program = Program { executable: "true".into(), prefix: vec![] };
        let cases = ["a:1", "a:2", "b:1"].map(|id| (&id[..1], 0, id.to_owned()));
        let cases = cases.into_iter().enumerate().map(|(i, (group, _, id))| (group, i, id)).collect();
        let job = Job {
            program: &program,
            backend: "none".into(),
            cases,
            selection: Selection::default(),
            expected: vec![],
            timeout: Duration::from_secs(20),
        };
        let report = job.run(|_| ()).unwrap();
        assert_eq!((report.total, report.crash, report.is_good()), (3, 3, false));
    }
}
