//! Makes folders that are still there after a power loss, and files that are their owner's alone.
//!
//! **Invariant:** when a folder is made, the entry that names it is on disk before anything is put into it;
//! only the owner may look inside what is made here.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Makes a folder and those above it that are missing, for their owner only, and makes their entries durable.
/// One that is there already is left as it is.
///
/// # Errors
/// The system's.
pub fn make(dir: &Path) -> io::Result<()> {
    let missing = missing(dir);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for made in missing {
        sync(parent(made))?;
    }
    Ok(())
}

/// Makes a file that is not there yet, for its owner only, to be written.
///
/// # Errors
/// The system's; one is that it exists.
pub fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a folder's entries durable.
///
/// # Errors
/// The system's.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The folders on the way to `dir` that are not there, from the innermost outwards.
fn missing(dir: &Path) -> Vec<&Path> {
    dir.ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect()
}

/// Where a folder's entry stands; a bare name stands in the current folder.
fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => dir,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_that_is_made_has_its_entry_synced() {
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("a/b/c");
        let names = |path: &Path| path.strip_prefix(home.path()).unwrap().to_owned();
        let found: Vec<_> = missing(&inner).into_iter().map(names).collect();
        assert_eq!(
            found,
            [Path::new("a/b/c"), Path::new("a/b"), Path::new("a")]
        );
        assert_eq!(parent(missing(&inner)[2]), home.path());
        make(&inner).unwrap();
        assert!(missing(&inner).is_empty());
        make(&inner).unwrap();
    }

    #[test]
    fn a_bare_name_stands_in_the_current_folder() {
        assert_eq!(parent(Path::new("data")), Path::new("."));
        assert_eq!(parent(Path::new("/")), Path::new("/"));
    }

    #[test]
    fn nobody_else_looks_inside() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a");
        make(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let file = new_file(&dir.join("f")).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(new_file(&dir.join("f")).is_err());
    }
}
