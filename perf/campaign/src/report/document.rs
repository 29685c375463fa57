//! Puts a report between the marker comments of a document.

use std::{fs, path::Path};

use crate::Fault;

/// A part of a document that is written by a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The comparison with others.
    Compared,
    /// The matrix of networks.
    Matrix,
    /// Requests and datagrams beside bulk.
    Beside,
}

impl Part {
    /// What is measured stands after the first line and before the second.
    const fn markers(self) -> (&'static str, &'static str) {
        match self {
            Self::Compared => ("<!-- measured: begin -->", "<!-- measured: end -->"),
            Self::Matrix => ("<!-- matrix: begin -->", "<!-- matrix: end -->"),
            Self::Beside => ("<!-- beside: begin -->", "<!-- beside: end -->"),
        }
    }
}

/// Replaces what stands between the markers of that part in the file at `path`.
///
/// # Errors
/// When it cannot be read or written, or lacks the markers.
pub fn write(path: &Path, part: Part, text: &str) -> Result<(), Fault> {
    let old = fs::read_to_string(path).map_err(Fault::file(path))?;
    let (begin, end) = part.markers();
    let new = replaced(&old, part, text).ok_or_else(|| {
        Fault::Machine(format!("{} does not hold {begin} … {end}", path.display()))
    })?;
    fs::write(path, new).map_err(Fault::file(path))
}

fn replaced(old: &str, part: Part, text: &str) -> Option<String> {
    let (begin, end) = part.markers();
    let (head, rest) = old.split_once(begin)?;
    let (_, tail) = rest.split_once(end)?;
    Some(format!("{head}{begin}\n\n{}\n\n{end}{tail}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_the_markers_stays() {
        for part in [Part::Compared, Part::Matrix, Part::Beside] {
            let (begin, end) = part.markers();
            let old = format!("# Title\n\n{begin}\nold\n{end}\n\nrest\n");
            let new = replaced(&old, part, "new\n").expect("it has markers");
            assert_eq!(new, format!("# Title\n\n{begin}\n\nnew\n\n{end}\n\nrest\n"));
            assert_eq!(replaced(&new, part, "new"), Some(new.clone()));
            assert_eq!(replaced("no markers", part, "new"), None);
        }
    }
}
