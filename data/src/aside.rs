//! Files that appear under their name only when they are whole.

use crate::{Error, Result};
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// A file beside `path`, removed if it is not [`publish`]ed.
pub(crate) fn temporary(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    // The permissions of any new file, not those of a private temporary one: caches are shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(Error::io("write", path))
}

/// Give a file its name, once its bytes are on the disk.
pub(crate) fn publish(mut file: NamedTempFile, path: &Path) -> Result<()> {
    file.flush().and_then(|()| file.as_file().sync_all()).map_err(Error::io("write", path))?;
    file.persist(path).map(|_| ()).map_err(|error| Error::io("write", path)(error.error))
}

/// Write a whole file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary(path)?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    publish(file, path)
}

/// Write a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).expect("a record of strings and numbers is JSON");
    json.push(b'\n');
    write(path, &json)
}
