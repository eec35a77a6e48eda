//! Twenty megabytes of real text through kcat and back; `cargo xtask soak files` sends all there is.

use drumlin_tests::round_trip::Text;
use drumlin_tests::scratch::Scratch;

const BYTES: u64 = 20_000_000;

#[test]
fn on_a_local_directory() {
    let scratch = Scratch::new("text-local").expect("a folder");
    let mut text = Text::write(scratch.path(), BYTES).expect("text from the registry");
    text.on_local(scratch.path()).expect("all of it comes back");
}

#[test]
fn on_minio() {
    let scratch = Scratch::new("text-minio").expect("a folder");
    let mut text = Text::write(scratch.path(), BYTES).expect("text from the registry");
    text.on_minio(scratch.path()).expect("all of it comes back");
}
