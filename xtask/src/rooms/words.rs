//! Rule "words": a file that names somebody's own folder works on one machine only.

use std::path::Path;

use super::Violation;

/// Written in two parts, so that this file keeps its own rule.
const FOLDERS: [&str; 3] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

pub(super) fn check(file: &Path, text: &str) -> Vec<Violation> {
    let wrong = |(line, text): (usize, &str)| {
        let folder = FOLDERS.iter().find(|folder| names(text, folder))?;
        Some(Violation {
            file: file.to_owned(),
            line: line + 1,
            rule: "words",
            what: format!("`{folder}` is a folder of one machine"),
            cure: "name the place relative to the workspace, or take it from the environment".into(),
        })
    };
    text.lines().enumerate().filter_map(wrong).collect()
}

/// Whether the folder stands there as the start of a path, and not inside one.
fn names(text: &str, folder: &str) -> bool {
    let goes_on = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "}_-.~*".contains(c));
    text.match_indices(folder).filter_map(|(at, _)| text.get(..at)).any(|before| !goes_on(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_people_are_found() {
        let text = format!("fine\nsee {}someone/dupip\n", FOLDERS[0]);
        let lines: Vec<_> = check(Path::new("README.md"), &text).iter().map(|violation| violation.line).collect();
        assert_eq!(lines, [2]);
        let inside = format!("/proc/{{pid}}{0} and /proc/7{0}", FOLDERS[1]);
        assert_eq!(check(Path::new("README.md"), &inside), []);
        assert_eq!(check(Path::new("README.md"), "~/.cargo and /run/dupip/dupip.sock"), []);
    }
}
