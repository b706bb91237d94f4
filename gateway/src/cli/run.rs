//! `portcullis run`.

use std::path::Path;

use super::{Failure, Outcome};
use crate::{app, config};

pub(super) fn run(file: &Path) -> Result<Outcome, Failure> {
    let loaded = config::load(file).map_err(Failure::Mistakes)?;
    app::run(loaded)
        .map(|()| Outcome::Done)
        .map_err(|error| Failure::other("the gateway stopped", error))
}
