//! The fuzz target of packets, for a moment: every seed, and a bounded number of mutations of seeds. A
//! failure prints the input. The fuzzer itself is in `gateway/fuzz`.

use std::{fs, panic, path::Path};

use crate::broker::fuzzed;

/// Mutated inputs.
const MUTATIONS: usize = 4000;

fn run(input: &[u8]) {
    // What is allocated is counted by the fuzzer alone.
    let uncounted = |work: &mut dyn FnMut()| {
        work();
        0
    };
    if let Err(cause) = panic::catch_unwind(|| fuzzed::run(input, uncounted)) {
        eprintln!("it fails on b\"{}\"", input.escape_ascii());
        panic::resume_unwind(cause);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(..=input.len());
    let end = (at + random.usize(..=16)).min(input.len());
    match random.u8(..4) {
        0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        1 => drop(input.drain(at..end)),
        2 => drop(input.splice(at..at, [random.u8(..)])),
        _ => {
            let other = &seeds[random.usize(..seeds.len())];
            let from = random.usize(..=other.len());
            let until = (from + random.usize(..=32)).min(other.len());
            drop(input.splice(at..end, other[from..until].iter().copied()));
        }
    }
}

#[test]
fn packets_are_read_alike_in_any_pieces_and_read_the_same_when_they_are_written_again() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/packets");
    let files = fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    seeds.iter().for_each(|input| run(input));
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..MUTATIONS {
        let mut input = seeds[random.usize(..seeds.len())].clone();
        for _ in 0..random.usize(1..5) {
            mutate(&mut input, &seeds, &mut random);
        }
        run(&input);
    }
}
