//! Files that were cut, flipped, swapped, lost, or made to deceive: a typed error, or the index as it was; never a panic.

mod common;

use common::{Model, add, check, codec, contents, engine, random};
use maxsim_core::{ErrorCode, Result};
use maxsim_plaid::store::{MemoryStorage, Storage, Verify};
use maxsim_plaid::{CreateOptions, Index, IndexWriter};
use rand::RngExt;

/// Two segments with metadata and deleted documents.
fn files() -> Vec<(String, Vec<u8>)> {
    let storage = MemoryStorage::new();
    let mut writer =
        IndexWriter::create_in(&engine(), storage.clone(), codec(), CreateOptions::default()).unwrap();
    add(&mut writer, &(0..30).map(|id| (id, id)).collect::<Vec<_>>()).unwrap();
    writer.commit().unwrap();
    add(&mut writer, &[(100, 100), (101, 101), (102, 102)]).unwrap();
    writer.delete(&[3.into(), 4.into()]).unwrap();
    writer.commit().unwrap();
    let names = storage.names().unwrap();
    assert_eq!(names.len(), 4);
    names
        .into_iter()
        .map(|name| {
            let bytes = storage.open(&name).unwrap();
            (name, (*bytes).as_ref().to_vec())
        })
        .collect()
}

fn storage(files: &[(String, Vec<u8>)]) -> MemoryStorage {
    MemoryStorage::with_files(files.iter().map(|(name, bytes)| (name.clone(), &bytes[..])))
}

fn open(files: &[(String, Vec<u8>)], verify: Verify) -> Result<Index> {
    Index::open_in(storage(files), verify)
}

fn expected() -> Model {
    (0..30).filter(|id| !(3..5).contains(id)).chain(100..103).map(|id| (id, id)).collect()
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let good = files();
    check(&open(&good, Verify::All).unwrap(), &expected());
    let mut random = random(1);
    let mut structure = 0;
    for file in 0..good.len() {
        for at in 0..good[file].1.len() {
            let mut files = good.clone();
            files[file].1[at] ^= 1 << random.random_range(0..8);
            let error = open(&files, Verify::All).expect_err(&format!("{} at {at}", good[file].0));
            let codes = [ErrorCode::Corrupt, ErrorCode::Format, ErrorCode::Version];
            assert!(codes.contains(&error.code()), "{error}");
            // Without reading residuals: an error, or an index that can be searched and of which `verify` knows.
            if let Ok(index) = open(&files, Verify::Structure) {
                structure += 1;
                assert_eq!(index.verify().unwrap_err().code(), ErrorCode::Corrupt);
                assert_eq!(contents(&index).documents.len(), expected().len());
            }
        }
    }
    assert!(structure > 0, "flipped residuals are noticed when they are looked for");
}

#[test]
fn cut_and_lengthened_files_are_refused() {
    let good = files();
    for file in 0..good.len() {
        for length in (0..good[file].1.len()).step_by(7).chain([good[file].1.len() - 1]) {
            let mut files = good.clone();
            files[file].1.truncate(length);
            assert_eq!(open(&files, Verify::Structure).unwrap_err().code(), ErrorCode::Corrupt);
        }
        let mut files = good.clone();
        files[file].1.push(0);
        assert_eq!(open(&files, Verify::Structure).unwrap_err().code(), ErrorCode::Corrupt);
    }
}

#[test]
fn lost_and_swapped_files_are_noticed() {
    let good = files();
    for file in 0..good.len() {
        let mut files = good.clone();
        let (name, _) = files.remove(file);
        let error = open(&files, Verify::Structure).unwrap_err();
        let expected = if name == "manifest.mxi" { ErrorCode::Format } else { ErrorCode::Corrupt };
        assert_eq!(error.code(), expected, "{error}");
        assert!(IndexWriter::open_in(&engine(), storage(&files)).is_err());
    }
    let segments: Vec<usize> = (0..4).filter(|&i| good[i].0.starts_with("segment")).collect();
    let mut files = good.clone();
    files[segments[0]].1 = good[segments[1]].1.clone();
    let error = open(&files, Verify::Structure).unwrap_err();
    assert!(error.to_string().contains("not the file that the manifest speaks of"), "{error}");
}

#[test]
fn a_newer_version_says_what_it_is() {
    for (name, place) in [("manifest.mxi", 8), ("codec-00000001.mxi", 8)] {
        let mut files = files();
        let file = files.iter_mut().find(|(n, _)| n == name).unwrap();
        file.1[place] = 9;
        let error = open(&files, Verify::Structure).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("memory/{name}: version 9.0 is not readable here (newest known: 1.0)")
        );
    }
}

#[test]
fn merging_does_not_give_damage_a_new_checksum() {
    let mut files = files();
    let (_, bytes) = files.iter_mut().find(|(name, _)| name.starts_with("segment")).unwrap();
    // The last section is that of residuals.
    let end = bytes.len() - 64;
    bytes[end] ^= 1;
    let storage = storage(&files);
    let mut writer = IndexWriter::open_in(&engine(), storage.clone()).unwrap();
    assert_eq!(writer.compact().unwrap_err().code(), ErrorCode::Corrupt);
    // It is as it was, and can be written to.
    add(&mut writer, &[(500, 1)]).unwrap();
    assert_eq!(Index::open_in(storage, Verify::Structure).unwrap().len(), expected().len());
}

/// Sections with anything in them, under checksums that hold: what a hostile file looks like.
#[test]
fn valid_checksums_over_wrong_contents_do_no_harm() {
    let good = files();
    let mut random = random(2);
    let mut refused = 0;
    for _ in 0..4000 {
        let mut files = good.clone();
        let file = random.random_range(0..files.len());
        for _ in 0..random.random_range(1..4) {
            let length = files[file].1.len();
            let at = random.random_range(64..length);
            match random.random_range(0..3) {
                0 => files[file].1[at] = random.random(),
                1 => files[file].1[at] ^= 1 << random.random_range(0..8),
                _ => {
                    let at = at / 8 * 8;
                    let value: u64 =
                        [0, 1, u64::MAX, u64::MAX / 2, 1 << 32, 1 << 31, 65_536][random.random_range(0..7)];
                    files[file].1[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        forge(&mut files, file);
        match open(&files, Verify::All) {
            Err(_) => refused += 1,
            Ok(index) => {
                // Whatever it says now, it can be asked.
                let _ = index.verify();
                contents(&index);
                if let Ok(mut writer) = IndexWriter::open_in(&engine(), storage(&files)) {
                    let _ = writer.delete(&[7.into()]);
                    let _ = writer.compact();
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

/// Makes the checksums of a changed file hold, and the manifest speak of it.
fn forge(files: &mut [(String, Vec<u8>)], file: usize) {
    let before = read_u32(&files[file].1, 32);
    let bytes = &mut files[file].1;
    let header = read_u32(bytes, 24) as usize;
    let sections = read_u32(bytes, 28) as usize;
    if header > bytes.len() || 64 + 24 * sections > header {
        return;
    }
    for section in 0..sections {
        let entry = 64 + 24 * section;
        let first = read_u32(bytes, entry + 4) as usize;
        let offset = read_u32(bytes, entry + 8) as usize;
        let length = read_u32(bytes, entry + 16) as usize;
        let Some(contents) = offset.checked_add(length).and_then(|end| bytes.get(offset..end)) else {
            continue;
        };
        let sums: Vec<u32> = contents.chunks(1 << 16).map(crc32c::crc32c).collect();
        for (i, sum) in sums.into_iter().enumerate() {
            let at = 64 + 24 * sections + 4 * (first + i);
            if at + 4 <= header {
                bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
    bytes[32..36].fill(0);
    let sum = crc32c::crc32c(&bytes[..header]);
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
    if files[file].0 == "manifest.mxi" {
        return;
    }
    let manifest = files.iter().position(|(name, _)| name == "manifest.mxi").unwrap();
    let bytes = &mut files[manifest].1;
    let old = before.to_le_bytes();
    let mentions: Vec<usize> = (64..bytes.len() - 4).filter(|&at| bytes[at..at + 4] == old).collect();
    mentions.into_iter().for_each(|at| bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes()));
    forge(files, manifest);
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[cfg(target_os = "linux")]
mod directories {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn build(path: &Path) {
        let storage = maxsim_plaid::store::DirectoryStorage::new(path);
        let mut writer =
            IndexWriter::create_in(&engine(), storage, codec(), CreateOptions::default()).unwrap();
        add(&mut writer, &[(1, 1), (2, 2)]).unwrap();
        writer.commit().unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        build(&path);
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::remove_file(path.join("lock")).unwrap();
        mode(0o555);
        check(&Index::open(&path).unwrap(), &Model::from([(1, 1), (2, 2)]));
        // The superuser may write everywhere.
        if std::fs::write(path.join("probe"), "").is_err() {
            let error = IndexWriter::open(&engine(), &path).err().unwrap();
            assert_eq!(error.code(), ErrorCode::Io);
        }
        mode(0o755);
    }

    /// A file system of 256 KiB, where there is the right to mount one.
    #[test]
    fn a_full_disk_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: no right to mount a file system");
            return;
        }
        let result = std::panic::catch_unwind(|| fill(&directory.path().join("index")));
        assert!(Command::new("umount").arg(directory.path()).status().unwrap().success());
        result.unwrap();
    }

    fn fill(path: &Path) {
        build(path);
        let ballast = path.with_file_name("ballast");
        std::fs::write(&ballast, [0; 64 << 10]).unwrap();
        let mut model = Model::from([(1, 1), (2, 2)]);
        let mut writer = IndexWriter::open(&engine(), path).unwrap();
        let error = (10..).find_map(|id| {
            let documents: Vec<(u64, u64)> = (0..100).map(|i| (id * 100 + i, i)).collect();
            add(&mut writer, &documents).unwrap();
            match writer.commit() {
                Ok(_) => {
                    model.extend(documents);
                    None
                }
                Err(error) => Some((error, documents)),
            }
        });
        let (error, documents) = error.unwrap();
        assert_eq!(error.code(), ErrorCode::Io);
        assert!(error.to_string().contains("No space left"), "{error}");
        assert!(model.len() > 100);
        check(&Index::open(path).unwrap(), &model);
        // Room is made, and the commit that failed comes about.
        std::fs::remove_file(ballast).unwrap();
        writer.commit().unwrap();
        model.extend(documents);
        check(&Index::open(path).unwrap(), &model);
    }
}
