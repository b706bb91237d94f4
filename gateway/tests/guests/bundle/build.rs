//! Compiles the guests that misbehave.

use portcullis_guest_build::{Guest, build};

fn main() {
    build(&[Guest {
        name: "hostile",
        package: "portcullis-hostile",
        dir: "gateway/tests/guests/hostile",
    }]);
}
