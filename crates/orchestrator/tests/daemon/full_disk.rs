//! A full disk: clear answers, nothing half done, and on it goes when there is room again.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::directory::Running;

/// A small file system of its own, unmounted with the test; `None` where mounting is not permitted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.key).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.key);
        request.send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_survived() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not run: mounting a small file system is not permitted here");
        return;
    };
    orchestrator::client::network::http::install_crypto_provider();
    let data = disk.path().join("data");
    let daemon = Running::start(&data);
    let api = Api {
        client: reqwest::Client::new(),
        base: daemon.address("api"),
        key: fs::read_to_string(data.join("operator.key")).unwrap().trim().to_owned(),
    };
    // Everything that is left goes to a file in the way.
    let filler = disk.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let zeroes = vec![0_u8; 64 << 10];
    while std::io::Write::write_all(&mut file, &zeroes).is_ok() {}
    drop(file);

    let mut acknowledged = Vec::new();
    let mut refused = None;
    for round in 0..5_000 {
        let name = format!("consumer {round}");
        match api.post("/consumers", json!({ "name": name })).await {
            (201, made) => acknowledged.push(made["id"].as_str().unwrap().to_owned()),
            (status, problem) => {
                refused = Some((status, problem));
                break;
            }
        }
    }
    let (status, problem) = refused.expect("the disk never became full");
    assert_eq!((status, &problem["code"]), (507, &json!("storage_full")), "{problem}");
    // What was acknowledged is there, what was refused is not, and reading goes on.
    let count = |page: &Value| page["items"].as_array().unwrap().len();
    let listed = api.get("/consumers?limit=1000").await;
    assert_eq!(count(&listed), acknowledged.len().min(1_000), "{listed}");
    fs::remove_file(&filler).unwrap();
    let mut recovered = false;
    for _ in 0..100 {
        if api.post("/consumers", json!({ "name": "after" })).await.0 == 201 {
            recovered = true;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(recovered, "there is room again, and nothing can be written");
    assert_eq!(daemon.interrupt(), Some(0));
    let again = Running::start(&data);
    let api = Api { base: again.address("api"), ..api };
    let all = api.get("/consumers?limit=1000").await;
    assert_eq!(count(&all), (acknowledged.len() + 1).min(1_000));
}
