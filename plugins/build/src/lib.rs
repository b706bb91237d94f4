//! For build scripts: compiles guest crates of this workspace to WebAssembly components.
//!
//! Runs the same cargo again, for `wasm32-wasip2`, in `guests` below the target directory: shared
//! by all profiles and by `check` and `clippy`, so that the guests are compiled once; the result is
//! copied to `OUT_DIR`. The environment of the outer cargo is not handed on where it would change what is
//! built: flags for the host's machine code, wrappers such as clippy's, profiles, features.
//! If the wasm target is missing it is asked of rustup; if that fails, so does the build, with
//! the command to run.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-wasip2";

/// Variables of the outer cargo and rustc that must not reach the inner ones.
const STRIPPED: &[&str] = &[
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_PRIMARY_PACKAGE",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "DEBUG",
    "HOST",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
];

/// The same, by their beginning.
const STRIPPED_PREFIXES: &[&str] = &[
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_FEATURE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "DEP_",
];

/// Small components: they are compiled to machine code on the gateway itself, and what does not
/// exist need not be compiled.
const PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];

/// A guest crate.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// The name under which the component is known.
    pub name: &'static str,
    /// The cargo package.
    pub package: &'static str,
    /// Its directory, from the workspace's root.
    pub dir: &'static str,
}

/// Compiles `guests` and writes `OUT_DIR/guests.rs`: an expression, a slice of `(name, bytes)`.
/// Ends the build with a message if that fails.
pub fn build(guests: &[Guest]) {
    if let Err(error) = try_build(guests) {
        for line in error.to_string().lines() {
            println_cargo(&format!("error={line}"));
        }
    }
}

fn try_build(guests: &[Guest]) -> Result<(), Box<dyn Error>> {
    let root = workspace_root()?;
    rerun_when_changed(&root, guests);
    ensure_target()?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let target_dir = guests_dir(&out_dir);
    let mut cargo = inner(&env::var("CARGO")?);
    cargo
        .current_dir(&root)
        .args(["build", "--release", "--locked", "--lib", "--quiet"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .envs(PROFILE.iter().copied());
    for guest in guests {
        cargo.args(["--package", guest.package]);
    }
    let output = cargo.output()?;
    if !output.status.success() {
        return Err(format!(
            "failed to compile the plugins to {TARGET}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let compiled = target_dir.join(TARGET).join("release");
    fs::write(
        out_dir.join("guests.rs"),
        collect(guests, &compiled, &out_dir)?,
    )?;
    Ok(())
}

/// Copies the components and returns `&[("name", include_bytes!("…")), …]`.
fn collect(guests: &[Guest], compiled: &Path, out_dir: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::from("&[");
    for guest in guests {
        let file = format!("{}.wasm", guest.package.replace('-', "_"));
        let path = out_dir.join(&file);
        fs::copy(compiled.join(file), &path)?;
        let path = path.to_str().ok_or("the target directory is not UTF-8")?;
        text += &format!("({:?}, include_bytes!({path:?})),", guest.name);
    }
    text.push(']');
    Ok(text)
}

/// `guests` in the outer target directory, which cargo marks; else in `out_dir`.
fn guests_dir(out_dir: &Path) -> PathBuf {
    let marked = out_dir
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file());
    marked.unwrap_or(out_dir).join("guests")
}

/// The nearest directory above the package that has a lock file.
fn workspace_root() -> Result<PathBuf, Box<dyn Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = package
        .ancestors()
        .find(|dir| dir.join("Cargo.lock").is_file());
    Ok(root.ok_or("no Cargo.lock above the package")?.to_owned())
}

/// What the components are made of. Not the whole workspace: a change of the gateway must not
/// compile its plugins again.
fn rerun_when_changed(root: &Path, guests: &[Guest]) {
    let shared = ["Cargo.lock", "rust-toolchain.toml", "wit/plugin.wit"];
    let sdk = ["plugin-sdk/Cargo.toml", "plugin-sdk/src"];
    for path in shared.into_iter().chain(sdk) {
        println_cargo(&format!("rerun-if-changed={}", root.join(path).display()));
    }
    for guest in guests {
        for part in ["Cargo.toml", "src"] {
            let path = root.join(guest.dir).join(part);
            println_cargo(&format!("rerun-if-changed={}", path.display()));
        }
    }
}

fn ensure_target() -> Result<(), Box<dyn Error>> {
    if target_is_installed()? {
        return Ok(());
    }
    let mut arguments = vec!["target", "add", TARGET];
    let toolchain = env::var("RUSTUP_TOOLCHAIN").ok();
    if let Some(toolchain) = &toolchain {
        arguments.extend(["--toolchain", toolchain]);
    }
    let added = inner("rustup").args(&arguments).output();
    if target_is_installed()? {
        return Ok(());
    }
    let reason = match added {
        Ok(output) => first_error(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => format!("rustup cannot be run: {error}"),
    };
    Err(format!(
        "the plugins need the Rust target {TARGET}, and it could not be installed ({reason}). Run:\n\
         rustup {}",
        arguments.join(" ")
    )
    .into())
}

/// The line that says what is wrong; rustup may write many.
fn first_error(stderr: &str) -> String {
    let error = stderr.lines().find(|line| line.starts_with("error"));
    error.or(stderr.lines().last()).unwrap_or("").to_owned()
}

/// Whether the toolchain in use has the target's standard library.
fn target_is_installed() -> Result<bool, Box<dyn Error>> {
    let output = inner(&env::var("RUSTC")?)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()?;
    let libdir = String::from_utf8(output.stdout)?;
    Ok(output.status.success() && Path::new(libdir.trim()).is_dir())
}

/// A command that does not inherit what the outer cargo set for itself.
fn inner(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let stripped = name.to_str().is_some_and(|name| {
            STRIPPED.contains(&name)
                || STRIPPED_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        });
        if stripped {
            command.env_remove(&name);
        }
    }
    command
}

#[expect(
    clippy::print_stdout,
    reason = "this is how a build script speaks to cargo"
)]
fn println_cargo(directive: &str) {
    println!("cargo::{directive}");
}
