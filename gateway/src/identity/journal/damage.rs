//! Lines that are not understood: what is said of them, and where they go.

use std::{
    fs::{self, File},
    io::{self, Write},
};

use portcullis_core::{
    limits::JOURNAL_BYTES_MAX,
    problem::{Place, Problem},
    registry::line::{Fault, Reading, Whom},
};

use super::Journal;

impl Journal {
    /// The lines that may have shut somebody out of whom that is not known.
    pub fn mistakes(&self, reading: &Reading) -> Vec<Problem> {
        let mistake = |fault: &Fault| {
            self.told(
                fault,
                format!("{}: whom it shut out is not known", fault.why),
                "put the journal back from a copy; or shut out with `cert revoke` and `thing quarantine` \
                 whom the line may have named, and accept its loss: write `#` before it",
            )
        };
        doubtful(reading).map(mistake).collect()
    }

    /// The other lines that are not understood, as warnings.
    pub fn warnings(&self, reading: &Reading) -> Vec<Problem> {
        let warning = |fault: &Fault| {
            self.told(
                fault,
                format!("{}: whom it names is shut out", fault.why),
                "look at them with `portcullis thing show` and `portcullis cert list`, and say \
                 what holds with `thing quarantine --release` or `cert activate`",
            )
        };
        let faults = reading.faults.iter();
        let sure = faults.filter(|fault| fault.whom != Whom::Unsure);
        sure.map(warning).collect()
    }

    fn told(&self, fault: &Fault, message: String, remedy: &str) -> Problem {
        let (line, column) = (fault.line, 1);
        Problem {
            file: self.path.to_path_buf(),
            place: Some(Place { line, column }),
            message,
            remedy: remedy.to_owned(),
        }
    }

    /// Keeps the lines that are not understood for whoever wants to look; their effect is in the
    /// state.
    pub(super) fn set_aside(&self, faults: &[Fault]) -> io::Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        let path = self.beside(".damaged");
        if fs::metadata(&path).is_ok_and(|file| file.len() > JOURNAL_BYTES_MAX) {
            fs::remove_file(&path)?;
        }
        let mut file = self.open_own(&path, File::options().append(true).create(true))?;
        for fault in faults {
            file.write_all(&fault.text)?;
            file.write_all(b"\n")?;
        }
        file.sync_all()
    }
}

/// Lines that may have shut somebody out of whom that is not known.
pub(super) fn doubtful(reading: &Reading) -> impl Iterator<Item = &Fault> {
    let faults = reading.faults.iter();
    faults.filter(|fault| fault.whom == Whom::Unsure)
}
