//! Backups of the real daemon: made under load, checked, refused when anything in them is damaged, put back after the loss
//! of a database.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    harness::{Api, Place, mode, wait_for},
    judge::judge,
    load::Load,
};

async fn back_up(place: &Place, name: &str) -> PathBuf {
    let to = place.dir.path().join(name);
    let made = place.cli(&["backup", "--json", &to.display().to_string()]).await.json();
    assert_eq!(made["directory"], json!(to));
    to
}

fn manifest(backup: &Path) -> Value {
    serde_json::from_slice(&fs::read(backup.join("manifest.json")).unwrap()).unwrap()
}

/// Turns one bit in the middle of a file.
fn damage(path: &Path) {
    let middle = fs::metadata(path).unwrap().len() / 2;
    let byte = fs::read(path).unwrap()[usize::try_from(middle).unwrap()];
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte ^ 1]).unwrap();
}

/// Every allocation of a consumer that is in one of the states, by id.
async fn in_state(consumer: &Api, state: &str) -> Vec<String> {
    let all = consumer.all("/allocations").await;
    let found = all.iter().filter(|found| found["state"] == state);
    found.map(|found| found["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_database_comes_back_with_all_that_was_acknowledged_before_the_backup() {
    let place = Place::hurried();
    let daemon = place.start().await;
    let (_, consumer) = daemon.api.consumer("careful").await;
    let kept = consumer.buy().await;
    consumer.until(&kept, "active").await;
    daemon.api.until_settled().await;
    let backup = back_up(&place, "backup").await;
    // The daemon goes on, and sells what no backup knows.
    let later = consumer.buy().await;
    consumer.until(&later, "active").await;
    daemon.api.until_settled().await;
    let provider = daemon.provider.clone();
    place.cli(&["restore", "--replace", &backup.display().to_string()]).await.ends(1, &["data_dir_locked"]);
    daemon.stop_well().await;

    // The disk lost a part of the file: no start on what can't be trusted.
    let database = place.data().join("orchestrator.db");
    let length = fs::metadata(&database).unwrap().len();
    let mut file = fs::OpenOptions::new().write(true).open(&database).unwrap();
    file.seek(SeekFrom::Start(4_096)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length).unwrap() - 4_096]).unwrap();
    drop(file);
    place.cli(&["run"]).await.ends(1, &["damaged"]);

    let from = backup.display().to_string();
    place.cli(&["restore", &from]).await.ends(1, &["already_exists", "--replace"]);
    let done = place.cli(&["restore", "--replace", "--json", &from]).await.json();
    assert!(!done["set_aside"].as_array().unwrap().is_empty(), "{done}");
    for aside in done["set_aside"].as_array().unwrap() {
        assert!(place.dir.path().join(aside.as_str().unwrap()).exists(), "{done}");
    }
    assert_eq!(mode(&database), 0o600);

    let daemon = place.start().await;
    let consumer = daemon.api.with_key(&consumer.key);
    assert_eq!(consumer.all("/allocations").await.len(), 1);
    consumer.until(&kept, "active").await;
    // What was sold afterwards is a person's to decide about: reconciling leaves it at the provider.
    wait_for("a comparison with the provider", || async {
        let triggers = daemon.api.get("/triggers").await;
        let text = triggers.to_string();
        text.contains("unknown since a restore").then_some(())
    })
    .await;
    let held = provider.with_key(&daemon.provider.key).get("/allocations").await;
    assert!(held.to_string().contains(&later), "{held}");
    // Work at the provider goes on: what it saw after the backup does not make the new calls look old.
    consumer.post(&format!("/allocations/{kept}/credentials"), json!({})).await;
    consumer.post(&format!("/allocations/{kept}/close"), json!({})).await;
    consumer.until(&kept, "closed").await;
    let again = consumer.buy().await;
    consumer.until(&again, "active").await;
    daemon.api.until_settled().await;
    daemon.stop_well().await;
    let report = place.cli(&["verify", "--json"]).await.json();
    assert_eq!(report["problems"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_under_load_are_good_and_a_daemon_goes_on_from_one() {
    let place = Place::busy();
    let daemon = place.start().await;
    let load = Load::begin(&daemon.api, 3, 3).await;
    let mut backups = Vec::new();
    for number in 0..4 {
        backups.push(back_up(&place, &format!("backup-{number}")).await);
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    let mut consumers = load.finish().await;
    judge(&daemon.api, &daemon.provider, &mut consumers).await;
    daemon.stop_well().await;
    for pair in backups.windows(2) {
        let (earlier, later) = (manifest(&pair[0]), manifest(&pair[1]));
        assert!(later["documents"]["transfers"].as_u64() >= earlier["documents"]["transfers"].as_u64());
    }
    assert!(manifest(&backups[3])["documents"]["transfers"].as_u64() > Some(0));

    // Elsewhere, with a provider that has nothing: the market is whole, and repairs what the provider lacks.
    let elsewhere = Place::hurried();
    let from = backups[3].display().to_string();
    elsewhere.cli(&["restore", &from]).await.ends(0, &["restored into"]);
    let daemon = elsewhere.start().await;
    daemon.api.until_settled().await;
    let (_, consumer) = daemon.api.consumer("new").await;
    let bought = consumer.buy().await;
    consumer.until(&bought, "active").await;
    assert_eq!(in_state(&consumer, "active").await, [bought]);
    daemon.stop_well().await;
    let report = elsewhere.cli(&["verify", "--json"]).await.json();
    assert_eq!(report["problems"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_with_any_damage_is_refused_and_nothing_is_changed() {
    let place = Place::hurried();
    let daemon = place.start().await;
    let (_, consumer) = daemon.api.consumer("careful").await;
    let bought = consumer.buy().await;
    consumer.until(&bought, "active").await;
    daemon.api.until_settled().await;
    daemon.stop_well().await;
    let backup = back_up(&place, "backup").await;
    let from = backup.display().to_string();
    place.cli(&["backup", &from]).await.ends(1, &["already_exists", "never changed"]);
    place.cli(&["restore", "--check", &from]).await.ends(0, &["is good", "state root"]);
    let listed = manifest(&backup)["files"].as_array().unwrap().clone();
    let named = |start: &str| listed.iter().any(|file| file["path"].as_str().unwrap().starts_with(start));
    for kind in ["database.db", "chain/settlement.db", "chain/da/", "storage/blocks/", "keys/vault.key"] {
        assert!(named(kind), "{kind} is not in {listed:?}");
    }
    for file in &listed {
        let path = file["path"].as_str().unwrap();
        assert_eq!(mode(&backup.join(path)), 0o600, "{path}");
        damage(&backup.join(path));
        place.cli(&["restore", "--replace", &from]).await.ends(1, &[path, "damaged"]);
        damage(&backup.join(path));
    }
    let extra = backup.join("storage/extra");
    fs::write(&extra, "").unwrap();
    place.cli(&["restore", "--check", &from]).await.ends(1, &["storage/extra does not belong"]);
    fs::remove_file(&extra).unwrap();
    place.cli(&["restore", "--check", &format!("{from}x")]).await.ends(1, &["not_found", "is no backup"]);
    place.cli(&["restore", "--check", &from]).await.ends(0, &["is good"]);

    // A medium that can only be read is good enough to restore from.
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o500)).unwrap();
    place.cli(&["restore", "--check", &from]).await.ends(0, &["is good"]);
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o700)).unwrap();

    // Nothing of all this has touched what was there.
    let daemon = place.start().await;
    daemon.api.with_key(&consumer.key).until(&bought, "active").await;
    daemon.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_restore_is_told_and_done_again() {
    let place = Place::hurried();
    place.start().await.stop_well().await;
    let backup = back_up(&place, "backup").await;
    let from = backup.display().to_string();
    // As a restore leaves it that was killed when it had set the old database aside.
    fs::write(place.data().join("restore.unfinished"), &from).unwrap();
    fs::rename(place.data().join("orchestrator.db"), place.data().join("orchestrator.db.replaced-1"))
        .unwrap();
    place.cli(&["run"]).await.ends(1, &["interrupted", "restore --replace"]);
    assert!(!place.data().join("orchestrator.db").exists(), "no empty market takes its place");
    place.cli(&["restore", "--replace", &from]).await.ends(0, &["restored into"]);
    let daemon = place.start().await;
    daemon.api.get("/me").await;
    daemon.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_may_be_kept_apart() {
    let place = Place::hurried();
    place.start().await.stop_well().await;
    let to = place.dir.path().join("backup").display().to_string();
    place.cli(&["backup", "--without-keys", &to]).await.ends(0, &["was checked"]);
    assert!(!Path::new(&to).join("keys").exists());
    let elsewhere = Place::hurried();
    elsewhere.cli(&["restore", &to]).await.ends(0, &["put vault.key back"]);
    // A daemon with a key of its own would fail at the first secret.
    elsewhere.cli(&["run"]).await.ends(1, &["not the one that sealed"]);
    fs::copy(place.data().join("vault.key"), elsewhere.data().join("vault.key")).unwrap();
    elsewhere.start().await.stop_well().await;
}
