//! Processes of one's own program, for runs that need two. A child gets its task as one JSON
//! argument and a shared segment as its standard input, and prints its result as JSON.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::limit::Segment;
use crate::limit::core_to_core::CoreToCore;
use crate::limit::pipeline::Pipeline;

/// How to start a child: a program, and the arguments with which it calls [`run`].
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the task.
    pub arguments: Vec<OsString>,
}

/// What a child does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The sending side of a copy pipeline.
    PipelineSend(Pipeline),
    /// The receiving side of a copy pipeline.
    PipelineReceive(Pipeline),
    /// The measuring side of a core-to-core ping-pong.
    CoreAsk(CoreToCore),
    /// The answering side of a core-to-core ping-pong.
    CoreAnswer(CoreToCore),
}

impl Task {
    /// Which of the first two processors the task runs on: a limit is about two cores, so the
    /// two sides must not be put on one.
    fn core(&self) -> usize {
        match self {
            Self::PipelineSend(_) | Self::CoreAsk(_) => 0,
            Self::PipelineReceive(_) | Self::CoreAnswer(_) => 1,
        }
    }

    fn role(&self) -> &'static str {
        match self {
            Self::PipelineSend(_) => "sending pipeline",
            Self::PipelineReceive(_) => "receiving pipeline",
            Self::CoreAsk(_) => "asking core-to-core",
            Self::CoreAnswer(_) => "answering core-to-core",
        }
    }
}

impl Launcher {
    /// This program itself.
    pub fn this_program(arguments: &[&str]) -> Result<Self> {
        let program = std::env::current_exe().context("find this program's own file")?;
        Ok(Self { program, arguments: arguments.iter().map(OsString::from).collect() })
    }

    /// Starts a child on `task`, with `segment` as its standard input.
    pub fn spawn(&self, task: &Task, segment: io::Result<OwnedFd>) -> Result<Running> {
        let segment = segment.context("duplicate the descriptor of a shared segment")?;
        let task_text = serde_json::to_string(task)
            .map_err(|error| Error::Invalid(format!("a task that is no JSON: {error}")))?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(task_text)
            .stdin(Stdio::from(segment))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(format!("start {} as the {} process", self.program.display(), task.role()))?;
        Ok(Running { child, role: task.role() })
    }
}

/// A child at work. Dropped, it is ended.
pub struct Running {
    child: Child,
    role: &'static str,
}

impl Running {
    /// Waits for the end of the child and takes its result.
    pub fn result<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut output = String::new();
        let mut errors = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut output).context("read a child's result")?;
        }
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).context("read a child's errors")?;
        }
        let status = self.child.wait().context("wait for a child process")?;
        let failed = |message: &str| Error::Child {
            role: self.role.into(),
            status: status.to_string(),
            message: message.trim().into(),
        };
        if !status.success() {
            return Err(failed(&errors));
        }
        serde_json::from_str(&output).map_err(|error| failed(&format!("{error} in `{output}`")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where the child has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does the task in `text`, as a child that a [`Launcher`] started, and returns its result as JSON.
pub fn run(text: &str) -> Result<String> {
    end_with_parent()?;
    let task: Task = serde_json::from_str(text)
        .map_err(|error| Error::Invalid(format!("this is no task: {error}")))?;
    pin(task.core()).context("pin a process to a processor")?;
    let descriptor = io::stdin().as_fd().try_clone_to_owned().context("take the shared segment")?;
    let segment = Segment::open(descriptor).context("map the shared segment")?;
    let result = match &task {
        Task::PipelineSend(pipeline) => serde_json::to_string(&pipeline.send(&segment)?),
        Task::PipelineReceive(pipeline) => serde_json::to_string(&pipeline.receive(&segment)?),
        Task::CoreAsk(ping) => serde_json::to_string(&ping.ask(&segment)?),
        Task::CoreAnswer(ping) => serde_json::to_string(&ping.answer(&segment)?),
    };
    result.map_err(|error| Error::Invalid(format!("a result that is no JSON: {error}")))
}

/// Binds this thread to number `wanted` of the processors that it may use, if there are as many.
fn pin(wanted: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    if let Some(cpu) = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).nth(wanted) {
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one)?;
    }
    Ok(())
}

/// This process is killed when the one that started it ends, however that ends.
pub fn end_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("bind this process to its parent")
}
