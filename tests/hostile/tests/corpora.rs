//! Plays the corpora of the fuzz targets, without a fuzzer: what was found once stays mended.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use hostile::Catalogue;
use hostile::targets::{TARGETS, parser};

/// The inputs of a corpus, in a fixed order.
fn corpus(target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_input_of_every_corpus() {
    for (target, play) in TARGETS {
        let files = corpus(target);
        assert!(files.len() >= 20, "the corpus of {target} is there");
        for file in files {
            println!("{target}: {}", file.display()); // shown if it panics
            play(&fs::read(&file).unwrap());
        }
    }
}

/// The reader's promises hold for every frame of the catalogue.
#[test]
fn every_frame_of_the_catalogue_is_read_as_promised() {
    for (_, frame) in Catalogue::new().iter() {
        parser(frame);
    }
    parser(&[]);
}
