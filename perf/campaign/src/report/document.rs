//! Puts a report between the marker comments of a document.

use std::{fs, path::Path};

use crate::Fault;

/// What is measured stands after this line.
const BEGIN: &str = "<!-- measured: begin -->";
/// And before this one.
const END: &str = "<!-- measured: end -->";

/// Replaces what stands between the markers of the file at `path`.
///
/// # Errors
/// When it cannot be read or written, or lacks the markers.
pub fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let old = fs::read_to_string(path).map_err(Fault::file(path))?;
    let new = replaced(&old, text).ok_or_else(|| {
        Fault::Machine(format!("{} does not hold {BEGIN} … {END}", path.display()))
    })?;
    fs::write(path, new).map_err(Fault::file(path))
}

fn replaced(old: &str, text: &str) -> Option<String> {
    let (head, rest) = old.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{}\n\n{END}{tail}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_the_markers_stays() {
        let old = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n");
        let new = replaced(&old, "new\n").expect("it has markers");
        assert_eq!(new, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nrest\n"));
        assert_eq!(replaced(&new, "new"), Some(new.clone()));
        assert_eq!(replaced("no markers", "new"), None);
    }
}
