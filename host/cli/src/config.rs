//! Settings: from a [`file`], then from arguments, which go before it. Resolved once.

mod file;

use std::net::IpAddr;
use std::path::Path;

use netchannel::{Config, DeviceChoice, Poller};

use crate::arguments::{Cli, Command, EngineArgs, Processors};
use crate::config::file::File;
use crate::link;
use crate::problem::Problem;

/// What the command runs with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Filter of the log.
    pub(crate) log: String,
    /// Settings of the runtime.
    pub(crate) stack: Config,
    /// Arguments with which another process of this program comes to the same settings.
    pub(crate) arguments: Vec<String>,
}

impl Settings {
    /// Reads the file, if one is named, and applies the arguments.
    pub(crate) fn resolve(cli: &Cli) -> Result<Self, Problem> {
        let file = match &cli.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let log = cli.log.clone().or_else(|| file.log.clone()).unwrap_or_else(|| "warn".into());
        // Without a file there is nothing to be wrong in it.
        let in_file = |reason: String| match &cli.config {
            Some(path) => Problem::Settings { path: path.clone(), reason },
            None => Problem::Usage(reason),
        };
        let stack = file.apply(cli.command.default_idle(), cli.command.default_poller());
        let mut stack = stack.map_err(in_file)?;
        let of_file = stack.check().err().map(|error| error.to_string());
        if let Some(device) = &cli.device {
            stack.device = DeviceChoice::from(device.as_str());
        }
        if let Some(engine) = cli.command.engine() {
            engine.apply(&mut stack)?;
        }
        stack.attach = cli.command.attach().map(Path::to_owned);
        if stack.attach.is_some() {
            refuse_engines_own(cli)?;
        }
        // Arguments may have mended what does not fit together in the file.
        stack.check().map_err(|error| match error.to_string() {
            reason if of_file.as_ref() == Some(&reason) => in_file(reason),
            reason => Problem::Usage(reason),
        })?;
        let arguments = same(cli, &stack);
        Ok(Self { log, stack, arguments })
    }

    /// Settings of a runtime that will listen on or connect to `address`. Two processes `of_one_run` meet
    /// within this host and have the device that the run is about.
    pub(crate) fn stack_at(&self, address: IpAddr, of_one_run: bool) -> Config {
        let address = (!of_one_run).then_some(address);
        Config { address, ..self.stack.clone() }
    }
}

/// How many of the engine's arguments, the first, who connects decides for both.
const SAID_BY_WHO_CONNECTS: usize = 3;

impl EngineArgs {
    /// What the engine alone can follow, and whether it was given.
    fn of_the_engine(&self) -> Vec<(&'static str, bool)> {
        vec![
            ("--channels", self.channels.is_some()),
            ("--latency-channels", self.latency_channels.is_some()),
            ("--groups", self.groups.is_some()),
            ("--policy", self.policy.is_some()),
            ("--congestion", self.congestion.is_some()),
            ("--poller", self.poller.is_some()),
            ("--pollers", self.pollers.is_some()),
            ("--pin", self.pin.is_some()),
            ("--window", self.window.is_some()),
            ("--link", self.link.is_some()),
        ]
    }

    fn apply(&self, stack: &mut Config) -> Result<(), Problem> {
        set(&mut stack.channels, self.channels);
        set(&mut stack.latency_channels, self.latency_channels);
        set(&mut stack.groups, self.groups);
        set(&mut stack.policy, self.policy);
        set(&mut stack.congestion, self.congestion.clone());
        set(&mut stack.poller, self.poller);
        set(&mut stack.polling_cores, self.pollers);
        set(&mut stack.pin, self.pin.clone().map(|pin| pin.0));
        set(&mut stack.idle, self.idle);
        set(&mut stack.window, self.window);
        let cores = [("--pollers", self.pollers.is_some()), ("--pin", self.pin.is_some())];
        if let (Poller::Inline, Some((name, _))) =
            (stack.poller, cores.into_iter().find(|(_, given)| *given))
        {
            return Err(Problem::Usage(format!(
                "{name} is about polling cores, and the poller is inline: say --poller dedicated \
                 as well"
            )));
        }
        if self.link.is_some() {
            match &stack.device {
                DeviceChoice::Auto => stack.device = DeviceChoice::from("soft"),
                DeviceChoice::Named(name) if name == "soft" => {}
                DeviceChoice::Named(name) => {
                    return Err(Problem::Usage(format!(
                        "--link is a model behind the NIC in memory, not behind `{name}`: use \
                         --device soft, or shape the network with tc"
                    )));
                }
            }
            stack.soft.link = self.link;
        }
        Ok(())
    }
}

/// Refuses arguments that only the engine of the other process can follow.
fn refuse_engines_own(cli: &Cli) -> Result<(), Problem> {
    let mut engine = cli.command.engine().map_or_else(Vec::new, EngineArgs::of_the_engine);
    if matches!(cli.command, Command::Perf(_)) {
        // The server has an engine of its own, and follows what is not for the connecting side to say.
        engine.truncate(SAID_BY_WHO_CONNECTS);
    }
    match engine.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Problem::Usage(format!(
            "{name} is for `netchannel engine` to say, with --attach: of all settings only --idle is \
             this process's own"
        ))),
        None => Ok(()),
    }
}

/// Arguments for another process; what a file alone can say is left to the file.
fn same(cli: &Cli, stack: &Config) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
    if let Some(path) = &cli.config {
        add("config", path.display().to_string());
    }
    if let Some(level) = &cli.log {
        add("log", level.clone());
    }
    add(
        "device",
        match &stack.device {
            DeviceChoice::Auto => "auto".into(),
            DeviceChoice::Named(name) => name.clone(),
        },
    );
    add("channels", stack.channels.to_string());
    add("latency-channels", stack.latency_channels.to_string());
    add("groups", stack.groups.to_string());
    add("policy", stack.policy.to_string());
    add("congestion", stack.congestion.to_string());
    add("poller", stack.poller.to_string());
    if stack.poller == Poller::Dedicated {
        add("pollers", stack.polling_cores.to_string());
        if !stack.pin.is_empty() {
            add("pin", Processors(stack.pin.clone()).to_string());
        }
    }
    add("idle", stack.idle.to_string());
    if stack.window > 0 {
        add("window", stack.window.to_string());
    }
    if let Some(model) = &stack.soft.link {
        add("link", link::show(model));
    }
    arguments
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}
