//! Compiles the shipped plugins.

use portcullis_guest_build::{Guest, build};

fn main() {
    build(&[
        Guest {
            name: "threshold",
            package: "portcullis-threshold",
            dir: "plugins/threshold",
        },
        Guest {
            name: "enrich",
            package: "portcullis-enrich",
            dir: "plugins/enrich",
        },
    ]);
}
