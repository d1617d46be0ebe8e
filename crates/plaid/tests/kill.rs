//! Writers that are killed, and readers beside writers: real processes in a real directory.

#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Model, add, check, codec, contents, engine, random};
use maxsim_plaid::store::{DirectoryStorage, Verify};
use maxsim_plaid::{CreateOptions, DocumentId, Index, IndexWriter};
use rand::RngExt;

const DIRECTORY: &str = "MAXSIM_TEST_INDEX";

/// What an index holds after commit `n` of its life: a function of `n`, so that any process knows it.
fn model(n: u64) -> Model {
    let mut model = Model::new();
    for step in 1..=n {
        apply(step, &mut model);
    }
    model
}

/// Documents that commit `n` adds; it deletes one of those of the commit before, and replaces another.
fn apply(n: u64, model: &mut Model) {
    model.extend(added(n));
    if n > 1 {
        model.remove(&deleted(n));
    }
}

fn added(n: u64) -> Vec<(u64, u64)> {
    let mut added: Vec<(u64, u64)> = (0..4).map(|i| (n * 10 + i, n + i)).collect();
    if n > 1 {
        added.push((replaced(n), n + 100));
    }
    added
}

fn deleted(n: u64) -> u64 {
    (n - 1) * 10 + n % 2
}

fn replaced(n: u64) -> u64 {
    (n - 1) * 10 + 2
}

/// Not a test: what the others run as a process and kill. Says which commits came about.
#[test]
#[ignore = "run by the other tests"]
fn writer_process() {
    let Ok(path) = std::env::var(DIRECTORY) else { return };
    // Its generation says where the life of the index is: creating it was number 1.
    let mut writer = match IndexWriter::open(&engine(), &path) {
        Ok(writer) => writer,
        Err(_) => {
            let storage = DirectoryStorage::new(&path);
            IndexWriter::create_in(&engine(), storage, codec(), CreateOptions::default()).unwrap()
        }
    }
    .with_segment_bytes(4000);
    let mut n = writer.index().unwrap().generation() - 1;
    loop {
        n += 1;
        if n > 1 {
            assert_eq!(writer.delete(&[deleted(n).into(), replaced(n).into()]).unwrap(), 2);
        }
        add(&mut writer, &added(n)).unwrap();
        let generation = if n % 5 == 0 { writer.compact() } else { writer.commit() };
        println!("committed {}", generation.unwrap() - 1);
    }
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["writer_process", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the writer and gives the last commit it acknowledged.
fn kill(mut child: Child) -> Option<u64> {
    child.kill().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let last =
        lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse().ok()).last();
    child.wait().unwrap();
    last
}

#[test]
fn killed_writers_lose_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut random = random(3);
    let (mut last, mut kills, mut under_way) = (0, 0, 0);
    while kills < 200 {
        let child = start(&path);
        std::thread::sleep(Duration::from_micros(random.random_range(2_000..40_000)));
        let acknowledged = kill(child).unwrap_or(0).max(last);
        kills += 1;
        let index = match Index::open_in(DirectoryStorage::new(&path), Verify::All) {
            Ok(index) => index,
            Err(error) => {
                assert_eq!((acknowledged, error.code().as_str()), (0, "ERR_FORMAT"), "{error}");
                continue;
            }
        };
        let n = index.generation() - 1;
        assert!(n == acknowledged || n == acknowledged + 1, "{n} after {acknowledged} were acknowledged");
        under_way += usize::from(n > acknowledged);
        check(&index, &model(n));
        last = n;
        if last > 300 {
            std::fs::remove_dir_all(&path).unwrap();
            last = 0;
        }
    }
    println!("{kills} kills, {under_way} of them between commit and acknowledgement");
}

#[test]
fn readers_beside_a_writer_always_see_one_commit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let child = start(&path);
    let end = Instant::now() + Duration::from_secs(3);
    let read = || {
        let mut generations = 0;
        let mut last: Option<Index> = None;
        while Instant::now() < end {
            let opened = match &last {
                Some(index) if generations % 3 > 0 => index.refresh(),
                _ => Index::open(&path),
            };
            let index = match opened {
                Ok(index) => index,
                // Not there yet.
                Err(error) if last.is_none() && error.code().as_str() == "ERR_FORMAT" => continue,
                Err(error) => panic!("{error}"),
            };
            let n = index.generation() - 1;
            let expected: Vec<DocumentId> = model(n).into_keys().map(Into::into).collect();
            let mut found: Vec<_> = contents(&index).documents.into_iter().map(|(id, _)| id).collect();
            found.sort();
            assert_eq!(found, expected);
            if let Some(before) = &last {
                assert!(before.generation() <= index.generation());
                generations += usize::from(before.generation() < index.generation());
                // What was opened before is what it was, though its files may be gone.
                let expected = model(before.generation() - 1).len();
                assert_eq!(contents(before).documents.len(), expected);
            }
            last = Some(index);
        }
        generations
    };
    let seen: usize = std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    let acknowledged = kill(child).unwrap();
    assert!(seen > 5 && acknowledged > 5, "{seen} commits seen of {acknowledged}");
}

#[test]
fn a_killed_writer_holds_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut child = start(&path);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("committed"))).unwrap().unwrap();
    let error = IndexWriter::open(&engine(), &path).err().unwrap();
    assert_eq!(error.code().as_str(), "ERR_LOCKED");
    child.kill().unwrap();
    child.wait().unwrap();
    IndexWriter::open(&engine(), &path).unwrap().commit().unwrap();
}
