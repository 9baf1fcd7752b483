//! A disk that is really full: the test runs itself again in a mount namespace of its own, on a file system of 256 KiB.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::tests::{entries, meta, save};
use super::*;

/// Where the small file system is mounted, for the test inside.
const MOUNTED: &str = "MTNLG_TEST_FULL_DISK";

#[test]
fn a_full_disk_while_saving() {
    let mount = tempfile::tempdir().unwrap();
    let inside = "checkpoint::full_disk::inside";
    let script = format!(
        "mount -t tmpfs -o size=256k none \"${MOUNTED}\" || exit 77; exec \"$0\" --exact {inside} --ignored --nocapture"
    );
    let child = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(MOUNTED, mount.path())
        .output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match child {
        Ok(output) if output.status.success() => {
            assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
        }
        // `unshare` itself fails with 1 before anything ran, where namespaces are not allowed.
        Ok(output) if output.status.code() != Some(77) && !output.stdout.is_empty() => {
            panic!("{}\n{}", text(&output.stdout), text(&output.stderr));
        }
        // Past the test harness's capture: a check that did not run must be seen.
        _ => writeln!(io::stderr(), "skipped: full-disk (no mount namespaces here)").unwrap(),
    }
}

#[test]
#[ignore = "run by a_full_disk_while_saving on a small file system"]
fn inside() {
    let mounted = std::env::var(MOUNTED).unwrap();
    let run = Path::new(&mounted);
    save(run, 1, 9);

    let slice = Slice::whole(&[100_000]);
    let values = vec![0.5; slice.len()];
    let tensor = ShardTensor { name: "a", slice: &slice, values: &values };
    let writer = Writer::begin(run, 2).unwrap();
    let error = writer.write_shard(0, &[tensor]).unwrap_err();
    let CheckpointError::DiskFull { path, needed } = &error else { panic!("{error}") };
    assert!(path.ends_with("checkpoints/.step-2.partial/shard-00000.safetensors"), "{}", path.display());
    assert!((400_000..401_000).contains(needed), "{needed}");
    assert_eq!(writer.write_shard(1, &[tensor]).unwrap_err(), CheckpointError::GivenUp);
    assert_eq!(writer.finish(meta(), 9).unwrap_err(), error);
    drop(writer);
    let told = crate::Error::from(error);
    assert_eq!(told.exit_code(), 2);
    assert!(told.to_string().contains("the disk is full") && told.to_string().contains("remedy: free space"));

    // Nothing of it is left, what was there is whole, and there is room again.
    assert_eq!(entries(run), ["step-1"]);
    assert_eq!(Reader::newest_good(run).unwrap().0.step(), 1);
    save(run, 3, 9);
    assert_eq!(entries(run), ["step-1", "step-3"]);
}
