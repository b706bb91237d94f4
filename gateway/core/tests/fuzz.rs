//! The fuzz targets, for a moment: every seed, and a bounded number of mutations of seeds. A failure
//! prints the input.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    unreachable_pub,
    reason = "helpers of tests; files are ours"
)]

mod reference;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::{fs, panic, path::Path};

use fastrand::Rng;
use targets::{TARGETS, Target};

/// Mutated inputs for each target.
const MUTATIONS: usize = 1500;
const INPUT_BYTES_MAX: usize = 4096;

#[test]
fn every_target_takes_its_seeds_and_what_becomes_of_them() {
    let seed = Rng::new().u64(..);
    println!("seed {seed}");
    for target in TARGETS {
        let seeds = seeds_of(target.0);
        seeds.iter().for_each(|input| run(target, input));
        let mut rng = Rng::with_seed(seed);
        for _ in 0..MUTATIONS {
            let mut input = seeds[rng.usize(..seeds.len())].clone();
            for _ in 0..rng.usize(1..5) {
                mutate(&mut input, &seeds, &mut rng);
            }
            input.truncate(INPUT_BYTES_MAX);
            run(target, &input);
        }
    }
}

#[test]
fn every_target_can_be_run_by_the_fuzzer() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let body = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(body.contains(&format!("targets::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

fn run((name, body): Target, input: &[u8]) {
    let outcome = panic::catch_unwind(|| body(input));
    if let Err(cause) = outcome {
        eprintln!("{name} fails on b\"{}\"", input.escape_ascii());
        panic::resume_unwind(cause);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.usize(..=input.len());
    let end = (at + rng.usize(..=16)).min(input.len());
    match rng.u8(..6) {
        0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        1 => drop(input.drain(at..end)),
        2 => drop(input.splice(at..at, [rng.u8(..)])),
        3 => {
            let again = input[at..end].to_vec();
            drop(input.splice(at..at, again));
        }
        4 => {
            let special = *b"*?${}[]\"',:/+#\n.0%\\";
            drop(input.splice(at..end, [special[rng.usize(..special.len())]]));
        }
        _ => {
            let other = &seeds[rng.usize(..seeds.len())];
            let from = rng.usize(..=other.len());
            let until = (from + rng.usize(..=32)).min(other.len());
            drop(input.splice(at..end, other[from..until].iter().copied()));
        }
    }
}

fn seeds_of(target: &str) -> Vec<Vec<u8>> {
    let dir = fuzz().join("seeds").join(target);
    let files = fs::read_dir(&dir).unwrap();
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seed in {}", dir.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn fuzz() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
