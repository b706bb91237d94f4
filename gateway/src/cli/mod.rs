//! The command line: a file per subcommand, each a thin layer over the library.
//!
//! Exit codes: 0 done, 1 failed, 2 bad input, 3 denied. Answers go to standard output, mistakes to
//! standard error; with `--json` the answer is one JSON document, that of a failure as well:
//! `{"error", "exitCode"}`.

mod ask;
mod buffer;
mod cert;
mod check;
mod client;
mod demo;
mod dev;
pub mod init;
mod outcome;
mod policy;
mod run;
mod shown;
mod status;
mod thing;

pub use demo::DemoArgs;
pub use outcome::{Failure, Outcome};

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Edge IoT security gateway: policies, security profiles and rules that hold when the internet
/// does not.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Arguments of every subcommand.
#[derive(Debug, clap::Args)]
struct Global {
    /// The settings.
    #[arg(
        short,
        long,
        global = true,
        env = "PORTCULLIS_CONFIG",
        default_value = "gateway.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Print one JSON document.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole product on this machine; needs no AWS and no configuration.
    Demo(DemoArgs),
    /// Make a ready configuration: CA, server certificate, registry, policy, profile.
    Init(init::InitArgs),
    /// Serve; SIGTERM drains and stops, SIGHUP reloads.
    Run,
    /// Ask the running gateway how it is and what it refused last.
    Status,
    /// Find every mistake of a configuration.
    Check,
    /// Add, list, show and remove things, and put them into quarantine.
    #[command(subcommand)]
    Thing(thing::ThingCommand),
    /// Issue, renew and import certificates, CAs and revocation lists; list, show, approve, activate,
    /// deactivate and revoke certificates.
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// List who is connected to the running gateway, and disconnect a client.
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// See what waits for the cloud, whether it can be read, and get it out; changes nothing.
    #[command(subcommand)]
    Buffer(buffer::BufferCommand),
    /// Ask what a policy would decide.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Stand in for what a gateway talks to, for trials and tests.
    #[command(subcommand)]
    Dev(dev::DevCommand),
}

impl Cli {
    /// Does what the arguments say.
    pub fn run(self) -> Outcome {
        let Global { config, json } = &self.global;
        let done = match self.command {
            Command::Demo(args) => demo::demo(DemoArgs {
                json: *json,
                ..args
            }),
            Command::Init(args) => init::init(&args, *json),
            Command::Run => run::run(config),
            Command::Status => status::status(config, *json),
            Command::Check => check::check(config, *json),
            Command::Thing(command) => thing::thing(&command, config, *json),
            Command::Cert(command) => cert::cert(&command, config, *json),
            Command::Client(command) => client::client(&command, config, *json),
            Command::Buffer(command) => buffer::buffer(&command, config, *json),
            Command::Policy(command) => policy::policy(&command, config, *json),
            Command::Dev(command) => dev::dev(command),
        };
        done.unwrap_or_else(|failure| failure.report(*json))
    }
}
